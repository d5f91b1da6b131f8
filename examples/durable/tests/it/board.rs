//! The board of apalis, on each engine.

use crate::{
    engines::{Engine, shared},
    http::Client,
    on_each_engine,
    scene::Scene,
};

on_each_engine!(the_board_shows_a_job_under_the_number_that_the_client_got);

fn the_board_shows_a_job_under_the_number_that_the_client_got(engine: Engine) {
    shared(|| {
        let scene = Scene::new(engine);
        let mut server = scene.serve();
        let order = r#"{"number":3}"#;
        let (_, id) = Client::new(scene.server)
            .answer("POST /orders", order)
            .unwrap();
        assert!(server.terminate().success());

        let _board = scene.board();
        let mut client = Client::new(scene.server);
        let mut get = |path: &str| client.answer(&format!("GET {path}"), "").unwrap();
        let (status, page) = get("/");
        assert_eq!(status, 200);
        assert!(page.contains("<html"), "{page}");
        let queue = format!("/api/v1/queues/{}/tasks", scene.queue());
        let mut paths = vec![format!("{queue}/{id}")];
        // apalis' Redis lists none: it reads another key than it writes.
        if engine != Engine::Redis {
            paths.push(format!("{queue}?status=Pending"));
        }
        for path in paths {
            let (status, tasks) = get(&path);
            assert_eq!(status, 200, "{path}: {tasks}");
            assert!(tasks.contains(&id), "{path}: {tasks}");
        }
    });
}

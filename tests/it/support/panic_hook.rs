//! Finds panics that are contained: a hook sees them all the same.

use std::{
    sync::{Mutex, Once},
    thread,
};

use tokio::runtime::{Builder, Runtime};

static PANICS: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// Counts the panics of threads that have a name of [`panics_in`].
fn install_the_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let shown = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            shown(panic);
            let (text, current) = (panic.to_string(), thread::current());
            let name = current.name().unwrap_or_default().to_owned();
            // That there is no timer, or no more, Tokio tells by nothing but a panic.
            let is_tokios = ["timers are disabled", "it is being shutdown"];
            let is_ours = !is_tokios.iter().any(|tokios| text.contains(tokios));
            if name.starts_with(WATCHED) && is_ours && !text.contains("on purpose") {
                PANICS.lock().unwrap().push((name, text));
            }
        }));
    });
}

const WATCHED: &str = "no panic: ";

/// Runs `test` on a thread of that name, which its runtimes' threads have too, and gives what has
/// panicked on any of them.
pub(crate) fn panics_in(name: &str, test: impl FnOnce(&str) + Send + 'static) -> Vec<String> {
    install_the_hook();
    let name = format!("{WATCHED}{name}");
    let own = name.clone();
    let thread = thread::Builder::new().name(name.clone());
    let ended = thread.spawn(move || test(&own)).unwrap().join();
    let mut panics = PANICS.lock().unwrap();
    let (ours, others) = panics.drain(..).partition(|(thread, _)| *thread == name);
    *panics = others;
    drop(panics);
    let texts: Vec<_> = Vec::into_iter(ours).map(|(_, text)| text).collect();
    assert!(ended.is_ok(), "{texts:?}");
    texts
}

pub(crate) fn no_panic_in(name: &str, test: impl FnOnce(&str) + Send + 'static) {
    let panics = panics_in(name, test);
    assert!(panics.is_empty(), "{}: {}", panics.len(), panics[0]);
}

/// Runtimes whose threads are watched: of one thread, and of two.
pub(crate) fn watched(name: &str, has_timer: bool) -> [Runtime; 2] {
    let one = Builder::new_current_thread();
    let mut two = Builder::new_multi_thread();
    two.worker_threads(2);
    [one, two].map(|mut builder| {
        builder.thread_name(name);
        if has_timer {
            builder.enable_time();
        }
        builder.build().unwrap()
    })
}

//! A chat over `WebSocket`s. When a socket closes, by its client or by a shutdown, its visitor leaves the room, and an audit line is
//! written.
//!
//! ```text
//! cargo run --package websocket      # then open http://127.0.0.1:3000 in two windows; close one; stop the server
//! ```

use std::{env, time::Duration};

use axum::{
    Router,
    extract::{
        State,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code},
    },
    response::{Html, Response},
    routing::get,
};
use tokio::{
    net::TcpListener,
    sync::broadcast::{self, error::RecvError},
    time::{Instant, timeout},
};
use tower_background_tasks::{BackgroundTasks, BoxError, KeepOpen, Runner, Task};

/// What is said, to all who are there.
type Room = broadcast::Sender<Utf8Bytes>;

async fn chat(
    tasks: BackgroundTasks,
    State(room): State<Room>,
    upgrade: WebSocketUpgrade,
) -> Response {
    // From here on a shutdown waits for this socket: its request ends with the answer to the upgrade.
    let open = tasks.keep_open();
    upgrade.on_upgrade(move |socket| visit(socket, room, tasks, open))
}

async fn visit(mut socket: WebSocket, room: Room, tasks: BackgroundTasks, _open: KeepOpen) {
    let (begun, mut messages) = (Instant::now(), 0);
    let mut heard = room.subscribe();
    let _ = room.send("someone came".into());
    let why = loop {
        tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    messages += 1;
                    let _ = room.send(text);
                }
                Some(Ok(Message::Close(_))) | None => break "closed",
                Some(Ok(_)) => {} // axum answers pings
                Some(Err(_)) => break "lost",
            },
            said = heard.recv() => match said {
                Ok(text) => if socket.send(Message::Text(text)).await.is_err() { break "lost" },
                Err(RecvError::Lagged(_)) => {} // a slow reader misses some
                Err(RecvError::Closed) => break "closed",
            },
            () = tasks.shutting_down() => {
                say_goodbye(&mut socket).await;
                break "ended by the server";
            }
        }
    };
    // Sent to those who are still there.
    tasks.add_task(Task::new(async move { drop(room.send("someone left".into())) }).named("leave"));
    let time = begun.elapsed();
    let audit = async move { println!("{messages} messages in {time:.1?}: {why}") };
    tasks.add_task(Task::new(audit).named("audit"));
}

/// Tells the client to come back, and waits a moment for it to agree.
async fn say_goodbye(socket: &mut WebSocket) {
    let goodbye = Message::Close(Some(CloseFrame {
        code: close_code::AWAY,
        reason: "the server restarts".into(),
    }));
    if socket.send(goodbye).await.is_ok() {
        let agreed = async { while let Some(Ok(_)) = socket.recv().await {} };
        let _ = timeout(Duration::from_secs(1), agreed).await;
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Without a subscriber for `tracing` a failed task would be counted, but not seen.
    tracing_subscriber::fmt().init();
    let runner = Runner::new();
    let app = Router::new()
        .route("/", get(Html(include_str!("chat.html"))))
        .route("/chat", get(chat))
        .layer(runner.layer())
        .with_state(Room::new(100));

    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(&address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; set ADDR to another"))?;
    let address = listener.local_addr()?;
    println!("Listening on http://{address}; Ctrl-C stops it. Open it in two windows.");

    let report = runner
        .serve(|shutdown| axum::serve(listener, app).with_graceful_shutdown(shutdown))
        .await?;
    println!("{report}");
    report.exit()
}

//! [`finish`]: reads a response as a server does.

use std::{future::poll_fn, pin::pin};

use bytes::{BufMut, Bytes, BytesMut};
use http::Response;
use http_body::Body;

/// Reads the body of a response to its end and drops it, as a server does, so that the request's
/// tasks can run. Returns the head with the body's bytes.
///
/// Like hyper, this reads until the body has ended or `is_end_stream` is true. It drops trailers,
/// and keeps the whole body in memory.
///
/// When this returns, the tasks are pending, but may not have begun. To wait for their ends, call
/// [`Runner::idle`](crate::Runner::idle).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use axum::{Router, body::Body, http::Request, routing::get};
/// use tower::ServiceExt; // for `oneshot`
/// use tower_background_tasks::{BackgroundTasks, Runner, testing::finish};
///
/// async fn hello(tasks: BackgroundTasks) -> &'static str {
///     tasks.add_task(async { println!("said hello") });
///     "hello"
/// }
///
/// let runner = Runner::new();
/// let app = Router::new().route("/", get(hello)).layer(runner.layer());
/// let request = Request::get("/").body(Body::empty())?;
/// let response = finish(app.oneshot(request).await?).await?;
/// assert_eq!((response.status().as_u16(), &response.body()[..]), (200, &b"hello"[..]));
/// assert!(runner.idle().await.is_complete());
/// assert_eq!(runner.stats().completed, 1);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// This returns an error when the body does. The response then ends
/// [`BodyFailed`](crate::ResponseEnd::BodyFailed), and its tasks run.
///
/// # Cancel safety
///
/// Dropping this drops the response before its end, as when a client disconnects. The response
/// ends [`Aborted`](crate::ResponseEnd::Aborted), and its tasks run.
pub async fn finish<B: Body>(response: Response<B>) -> Result<Response<Bytes>, B::Error> {
    let (head, body) = response.into_parts();
    let bytes = read(body).await?;
    Ok(Response::from_parts(head, bytes))
}

/// Reads `body` to its end. This owns the body, so the response has ended when this returns.
async fn read<B: Body>(body: B) -> Result<Bytes, B::Error> {
    let mut body = pin!(body);
    let mut bytes = BytesMut::new();
    while !body.is_end_stream() {
        match poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            Some(frame) => {
                if let Ok(data) = frame?.into_data() {
                    bytes.put(data);
                }
            }
            None => break,
        }
    }
    Ok(bytes.freeze())
}

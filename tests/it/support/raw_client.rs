//! HTTP/1 on a socket. The conformance suite has this file too.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::soon::soon;

/// An HTTP/1 client that shows the bytes.
pub(crate) struct RawClient(pub(crate) TcpStream);

impl RawClient {
    pub(crate) async fn send(&mut self, request: &str) {
        self.0.write_all(request.as_bytes()).await.unwrap();
    }

    /// Reads until what has come contains `text`.
    pub(crate) async fn read_until(&mut self, text: &str) -> String {
        let mut read = Vec::new();
        soon(async {
            while !String::from_utf8_lossy(&read).contains(text) {
                let length = self.0.read_buf(&mut read).await.unwrap();
                assert!(
                    length > 0,
                    "closed after {:?}",
                    String::from_utf8_lossy(&read)
                );
            }
        })
        .await;
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Reads until the server closes.
    pub(crate) async fn read_to_close(&mut self) -> String {
        let mut read = Vec::new();
        let _ = soon(self.0.read_to_end(&mut read)).await;
        String::from_utf8_lossy(&read).into_owned()
    }
}

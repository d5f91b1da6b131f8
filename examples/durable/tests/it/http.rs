//! A client that survives its server.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

pub(crate) struct Client {
    server: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
    was_sent: bool,
}

impl Client {
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self {
            server,
            connection: None,
            was_sent: false,
        }
    }

    /// Whether the last request was, as far as this side can tell.
    pub(crate) fn was_sent(&self) -> bool {
        self.was_sent
    }

    /// The status of the answer; `None` where there was none, and nobody knows what became of the order.
    pub(crate) fn order(&mut self, body: &str) -> Option<u16> {
        Some(self.answer("POST /orders", body)?.0)
    }

    /// The status and the body.
    pub(crate) fn answer(&mut self, request: &str, body: &str) -> Option<(u16, String)> {
        let answer = self.try_answer(request, body);
        if answer.is_err() {
            self.connection = None;
        }
        answer.ok()
    }

    fn try_answer(&mut self, request: &str, body: &str) -> io::Result<(u16, String)> {
        self.was_sent = false;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            slot => slot.insert(connect(self.server)?),
        };
        let length = body.len();
        let request = format!(
            "{request} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        connection.get_mut().write_all(request.as_bytes())?;
        self.was_sent = true;
        read_answer(connection)
    }
}

fn connect(server: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(BufReader::new(stream))
}

fn read_answer(connection: &mut BufReader<TcpStream>) -> io::Result<(u16, String)> {
    let (mut status, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(rest) = line.strip_prefix("http/1.1 ") {
            status = rest.get(..3).and_then(|status| status.parse().ok());
        } else if let Some(rest) = line.strip_prefix("content-length: ") {
            length = rest.parse().unwrap_or_default();
        } else if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

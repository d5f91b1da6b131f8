//! [`SystemSignals`]: the signals that ask a process to end.

use std::{
    io,
    task::{Context, Poll},
};

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
#[cfg(windows)]
use tokio::signal::windows::{CtrlC, CtrlClose, CtrlShutdown, ctrl_c, ctrl_close, ctrl_shutdown};

/// SIGTERM and Ctrl-C on Unix; Ctrl-C, the closing of the console and a shutdown on Windows.
pub(super) struct SystemSignals {
    #[cfg(unix)]
    heard: [Signal; 2],
    #[cfg(windows)]
    heard: (CtrlC, CtrlClose, CtrlShutdown),
}

impl SystemSignals {
    /// Starts to listen. From here on, a signal no longer ends the process by itself.
    ///
    /// Tokio panics outside a runtime, and if the runtime has no I/O driver.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            heard: [
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
            ],
            #[cfg(windows)]
            heard: (ctrl_c()?, ctrl_close()?, ctrl_shutdown()?),
        })
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        #[cfg(unix)]
        let is_heard = {
            let heard = self.heard.iter_mut();
            let polled = heard.map(|signal| signal.poll_recv(cx).is_ready());
            polled.fold(false, |any, one| any | one)
        };
        #[cfg(windows)]
        let is_heard = {
            let (c, close, shutdown) = &mut self.heard;
            c.poll_recv(cx).is_ready()
                | close.poll_recv(cx).is_ready()
                | shutdown.poll_recv(cx).is_ready()
        };
        if is_heard {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

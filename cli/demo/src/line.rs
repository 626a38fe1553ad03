//! A line that can be cut: a TCP proxy on loopback, through which one server reaches one listener of the host.
//!
//! Cut, it behaves as a cable that is pulled out somewhere on the way: nothing is refused or closed, nothing gets
//! through in either direction. Mended, it carries on with what both ends still want to say to one another.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::DemoError;

/// What is read at once.
const PIECE: usize = 16 << 10;

/// Carries for as long as it lives.
#[derive(Debug)]
pub struct Line {
    address: SocketAddr,
    carries: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Line {
    /// A line that leads to `target`.
    ///
    /// # Errors
    /// [`DemoError::Io`] if nothing can be listened on.
    pub async fn to(target: SocketAddr) -> Result<Self, DemoError> {
        let no_port = || DemoError::io("can't listen on 127.0.0.1");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(no_port())?;
        let address = listener.local_addr().map_err(no_port())?;
        let (carries, state) = watch::channel(true);
        let task = tokio::spawn(serve(listener, target, state));
        Ok(Self {
            address,
            carries,
            task,
        })
    }

    /// Where it begins.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nothing gets through.
    pub fn cut(&self) {
        self.carries.send_replace(false);
    }

    /// From now on everything gets through again.
    pub fn mend(&self) {
        self.carries.send_replace(true);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, carries: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((near, _)) => {
                    connections.spawn(connect(near, target, carries.clone()));
                }
                // Too many open files, for instance: the next one may find room.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(near: TcpStream, target: SocketAddr, mut carries: watch::Receiver<bool>) {
    if carries.wait_for(|carries| *carries).await.is_err() {
        return;
    }
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    for end in [&near, &far] {
        // Small messages must not wait for one another; without it they do, and nothing else is wrong.
        let _ = end.set_nodelay(true);
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::join!(
        carry(near_in, far_out, carries.clone()),
        carry(far_in, near_out, carries)
    );
}

/// Carries one direction until its end, and passes the end on: which doesn't get through a cut line either.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut carries: watch::Receiver<bool>) {
    let mut piece = vec![0; PIECE];
    loop {
        let read = from.read(&mut piece).await.unwrap_or(0);
        if carries.wait_for(|carries| *carries).await.is_err() {
            return;
        }
        if read == 0 || to.write_all(&piece[..read]).await.is_err() {
            // Either end is gone: then there is nobody left to tell.
            let _ = to.shutdown().await;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_cut_line_is_silent_and_a_mended_one_loses_nothing() {
        let host = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let line = Line::to(host.local_addr().expect("bound")).await.expect("a line");
        let mut near = TcpStream::connect(line.address()).await.expect("connected");
        let (mut far, _) = host.accept().await.expect("carried");
        let mut byte = [0];
        near.write_all(b"1").await.expect("sent");
        far.read_exact(&mut byte).await.expect("carried");

        line.cut();
        near.write_all(b"2").await.expect("whoever sends does not know");
        let mut later = TcpStream::connect(line.address())
            .await
            .expect("nothing is refused");
        later.write_all(b"3").await.expect("nor closed");
        let nothing = tokio::time::timeout(Duration::from_millis(200), far.read_exact(&mut byte)).await;
        assert!(nothing.is_err(), "{byte:?} got through");

        line.mend();
        far.read_exact(&mut byte).await.expect("carried");
        assert_eq!(&byte, b"2");
        let (mut far, _) = host.accept().await.expect("the new connection too");
        far.read_exact(&mut byte).await.expect("carried");
        assert_eq!(&byte, b"3");
    }
}

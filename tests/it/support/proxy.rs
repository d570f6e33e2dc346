//! A network between the service and what it stands on, which can be broken and slow.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Open,
    /// They are closed, and new ones at once.
    Cut,
    /// They stay open, and nothing passes, not even their end: half-open ones look like this.
    Stalled,
    /// Everything takes this long, in each direction.
    Slow(Duration),
}

/// Listens on one port of loopback and hands on to another, in a thread of its own, so
/// that a test that waits for a process doesn't hold it up.
pub struct Proxy {
    pub port: u16,
    flow: watch::Sender<Flow>,
    forgotten: watch::Sender<()>,
}

impl Proxy {
    pub fn start(port: u16, target: u16) -> Self {
        let (flow, flow_seen) = watch::channel(Flow::Open);
        let (forgotten, forgotten_seen) = watch::channel(());
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, target));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(accept(listener, target, flow_seen, forgotten_seen));
        });
        Self { port, flow, forgotten }
    }

    pub fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }

    /// Connections that are open are dead for good, as after a firewall forgot them:
    /// nothing passes over them any more, not even their end. New ones work.
    pub fn forget(&self) {
        self.forgotten.send_replace(());
    }
}

/// Until the proxy is dropped.
async fn accept(
    listener: std::net::TcpListener,
    target: SocketAddr,
    mut flow: watch::Receiver<Flow>,
    forgotten: watch::Receiver<()>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        if flow.wait_for(|flow| *flow != Flow::Stalled).await.is_err() {
            return;
        }
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { continue };
                if *flow.borrow() != Flow::Cut {
                    let mut forgotten = forgotten.clone();
                    forgotten.mark_unchanged();
                    tokio::spawn(connect(near, target, flow.clone(), forgotten));
                }
            }
            changed = flow.changed() => if changed.is_err() { return },
        }
    }
}

async fn connect(
    near: TcpStream,
    target: SocketAddr,
    flow: watch::Receiver<Flow>,
    mut forgotten: watch::Receiver<()>,
) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    for stream in [&near, &far] {
        stream.set_nodelay(true).unwrap();
    }
    let (mut near_in, mut near_out) = near.into_split();
    let (mut far_in, mut far_out) = far.into_split();
    tokio::select! {
        () = pump(&mut near_in, &mut far_out, flow.clone()) => {}
        () = pump(&mut far_in, &mut near_out, flow) => {}
        // Both ends stay open, and hear nothing.
        _ = forgotten.changed() => std::future::pending().await,
    }
}

async fn pump(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, mut flow: watch::Receiver<Flow>) {
    let mut buffer = vec![0; 65_536];
    let mut cut = flow.clone();
    loop {
        let read = tokio::select! {
            _ = cut.wait_for(|flow| *flow == Flow::Cut) => return,
            read = from.read(&mut buffer) => read,
        };
        // While nothing passes, no end does either.
        let now = flow.wait_for(|flow| *flow != Flow::Stalled).await.map(|flow| *flow);
        let Ok(read @ 1..) = read else { return };
        match now {
            Ok(Flow::Open) => {}
            Ok(Flow::Slow(by)) => tokio::time::sleep(by).await,
            _ => return,
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

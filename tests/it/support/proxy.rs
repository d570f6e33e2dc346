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
    /// They stay open, and nothing passes: half-open ones look like this.
    Stalled,
    /// Everything takes this long, in each direction.
    Slow(Duration),
}

/// Listens on one port of loopback and hands on to another, in a thread of its own, so
/// that a test that waits for a process doesn't hold it up.
pub struct Proxy {
    pub port: u16,
    flow: watch::Sender<Flow>,
}

impl Proxy {
    pub fn start(port: u16, target: u16) -> Self {
        let (flow, seen) = watch::channel(Flow::Open);
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, target));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(accept(listener, target, seen));
        });
        Self { port, flow }
    }

    pub fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }
}

/// Until the proxy is dropped.
async fn accept(
    listener: std::net::TcpListener,
    target: SocketAddr,
    mut flow: watch::Receiver<Flow>,
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
                    tokio::spawn(connect(near, target, flow.clone()));
                }
            }
            changed = flow.changed() => if changed.is_err() { return },
        }
    }
}

async fn connect(near: TcpStream, target: SocketAddr, flow: watch::Receiver<Flow>) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    for stream in [&near, &far] {
        stream.set_nodelay(true).unwrap();
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = pump(near_in, far_out, flow.clone()) => {}
        () = pump(far_in, near_out, flow) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut flow: watch::Receiver<Flow>) {
    let mut buffer = vec![0; 65_536];
    let mut cut = flow.clone();
    loop {
        let read = tokio::select! {
            _ = cut.wait_for(|flow| *flow == Flow::Cut) => return,
            read = from.read(&mut buffer) => read,
        };
        let Ok(read @ 1..) = read else { return };
        match flow.wait_for(|flow| *flow != Flow::Stalled).await.map(|flow| *flow) {
            Ok(Flow::Open) => {}
            Ok(Flow::Slow(by)) => tokio::time::sleep(by).await,
            _ => return,
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

//! All routes, and the socket that they are served on.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use poem::http::uri::Scheme;
use poem::listener::Acceptor;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{
    Endpoint, EndpointExt, IntoResponse, Middleware, Request, Response, Result, Route, Server,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::Backend;
use super::console;
use super::documents;
use super::problem;

/// How long requests that are being answered may take to end after a stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a peer may take nothing of an answer, and how long while the service stops.
const STALL: Duration = Duration::from_secs(60);
const STALL_AT_STOP: Duration = Duration::from_millis(500);

/// Every path of the API, with Swagger UI and the console.
pub fn routes(backend: Arc<Backend>) -> impl Endpoint {
    Route::new()
        .nest("/docs/admin", documents::admin_ui())
        .nest("/docs/seller", documents::seller_ui())
        .nest("/console", poem::get(console::pages(console::BUILT)))
        .nest("/", documents::everything())
        .data(backend)
        .with(Unbroken)
        .catch_all_error(problem::from_framework)
        .with(documents::allow())
}

/// Answers requests until `stop`, then lets those that are being answered end.
pub async fn serve(
    listener: TcpListener,
    routes: impl Endpoint + 'static,
    stop: CancellationToken,
) {
    let served = match listener.local_addr() {
        Ok(address) => {
            let local = LocalAddr(address.into());
            Server::new_with_acceptor(Door { listener, local, stop: stop.clone() })
                .run_with_graceful_shutdown(routes, stop.cancelled_owned(), Some(DRAIN))
                .await
        }
        Err(err) => Err(err),
    };
    if let Err(err) = served {
        error!(error = %err, "the API stopped");
    }
}

/// Accepts sockets that send small answers at once (poem itself never sets
/// `TCP_NODELAY`) and that don't wait for ever for a peer who takes nothing.
struct Door {
    listener: TcpListener,
    local: LocalAddr,
    stop: CancellationToken,
}

impl Acceptor for Door {
    type Io = Impatient;

    fn local_addr(&self) -> Vec<LocalAddr> {
        vec![self.local.clone()]
    }

    async fn accept(&mut self) -> io::Result<(Impatient, LocalAddr, RemoteAddr, Scheme)> {
        let (tcp, remote) = self.listener.accept().await?;
        // A peer that is gone already shows when it is read from.
        let _ = tcp.set_nodelay(true);
        let socket = Impatient { tcp, stop: self.stop.clone(), is_closed: false, stalled: None };
        Ok((socket, self.local.clone(), RemoteAddr(remote.into()), Scheme::HTTP))
    }
}

/// A socket that gives up a peer who has taken nothing for [`STALL`], or who is gone.
///
/// hyper ends a connection whose peer has closed it, but poem 3.1 then waits for
/// the answer that was under way all the same, and that of a stream never ends.
struct Impatient {
    tcp: TcpStream,
    stop: CancellationToken,
    /// The peer has closed its side.
    is_closed: bool,
    /// Since the peer has no room: resolves when it has had its time.
    stalled: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Impatient {
    fn bounded<T>(
        &mut self,
        cx: &mut Context<'_>,
        done: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.stalled = None;
            return done;
        }
        let stop = &self.stop;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(patience(stop.clone())));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

async fn patience(stop: CancellationToken) {
    let at_stop = async {
        stop.cancelled().await;
        sleep(STALL_AT_STOP).await;
    };
    tokio::select! {
        () = sleep(STALL) => {}
        () = at_stop => {}
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buffer))?;
        self.is_closed |= room > 0 && buffer.remaining() == room;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.bounded(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.tcp).poll_write_vectored(cx, slices);
        self.bounded(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// Lets a request run to its end although the one who sent it has gone.
///
/// A write that was committed but not put in force would otherwise be what a
/// closed connection leaves behind. A panic ends its own request alone.
struct Unbroken;

struct UnbrokenEndpoint<E>(Arc<E>);

impl<E: Endpoint + 'static> Middleware<E> for Unbroken {
    type Output = UnbrokenEndpoint<E>;

    fn transform(&self, endpoint: E) -> UnbrokenEndpoint<E> {
        UnbrokenEndpoint(Arc::new(endpoint))
    }
}

impl<E: Endpoint + 'static> Endpoint for UnbrokenEndpoint<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        let endpoint = self.0.clone();
        let answering =
            tokio::spawn(async move { Ok(endpoint.call(request).await?.into_response()) });
        answering.await.unwrap_or_else(|err| {
            error!(error = %err, "a request handler panicked");
            Err(problem::broken().into())
        })
    }
}

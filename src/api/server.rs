//! All routes, and the socket that they are served on.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use poem::http::uri::Scheme;
use poem::listener::Acceptor;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{
    Endpoint, EndpointExt, IntoResponse, Middleware, Request, Response, Result, Route, Server,
};
use tokio::net::{TcpListener, TcpStream};
use tracing::error;

use super::Backend;
use super::documents;
use super::problem;

/// How long requests that are being answered may take to end after a stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Every path of the API, with Swagger UI.
pub fn routes(backend: Arc<Backend>) -> impl Endpoint {
    Route::new()
        .nest("/docs/admin", documents::admin_ui())
        .nest("/docs/seller", documents::seller_ui())
        .nest("/", documents::everything())
        .data(backend)
        .with(Unbroken)
        .catch_all_error(problem::from_framework)
        .with(documents::allow())
}

/// Answers requests until `stop` resolves, then lets those that are being answered end.
pub async fn serve(
    listener: TcpListener,
    routes: impl Endpoint + 'static,
    stop: impl Future<Output = ()>,
) {
    let served = match listener.local_addr() {
        Ok(address) => {
            let local = LocalAddr(address.into());
            Server::new_with_acceptor(NoDelay { listener, local })
                .run_with_graceful_shutdown(routes, stop, Some(DRAIN))
                .await
        }
        Err(err) => Err(err),
    };
    if let Err(err) = served {
        error!(error = %err, "the API stopped");
    }
}

/// Accepts sockets that send small answers at once: poem itself never sets `TCP_NODELAY`.
struct NoDelay {
    listener: TcpListener,
    local: LocalAddr,
}

impl Acceptor for NoDelay {
    type Io = TcpStream;

    fn local_addr(&self) -> Vec<LocalAddr> {
        vec![self.local.clone()]
    }

    async fn accept(&mut self) -> io::Result<(TcpStream, LocalAddr, RemoteAddr, Scheme)> {
        let (socket, remote) = self.listener.accept().await?;
        // A peer that is gone already shows when it is read from.
        let _ = socket.set_nodelay(true);
        Ok((socket, self.local.clone(), RemoteAddr(remote.into()), Scheme::HTTP))
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

//! All routes, and the socket that they are served on.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use poem::http::uri::Scheme;
use poem::listener::Acceptor;
use poem::middleware::CatchPanic;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Endpoint, EndpointExt, IntoResponse, Response, Route, Server};
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
        .with(CatchPanic::new().with_handler(after_panic))
        .catch_all_error(problem::from_framework)
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

fn after_panic(_: Box<dyn std::any::Any + Send + 'static>) -> Response {
    error!("a request handler panicked");
    problem::broken().into_response()
}

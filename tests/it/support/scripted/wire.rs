//! HTTP and the WebSocket, as far as ARI needs them, with every way to go wrong.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Door, Fault, Flow, Say, Shared};

struct Request {
    method: String,
    /// Without the leading `/ari/`.
    path: String,
    query: String,
    websocket_key: Option<String>,
    body: Value,
}

pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // Connections end with the server.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        if *shared.door.borrow() == Door::Closed {
            shared.model.lock().open.refused += 1;
            continue;
        }
        while connections.try_join_next().is_some() {}
        let shared = shared.clone();
        connections.spawn(async move {
            let _open = Counted::new(&shared);
            converse(stream, &shared).await;
        });
    }
}

/// One more connection is open as long as this lives.
struct Counted<'a>(&'a Shared);

impl<'a> Counted<'a> {
    fn new(shared: &'a Shared) -> Self {
        let open = &mut shared.model.lock().open;
        open.now += 1;
        open.most = open.most.max(open.now);
        Self(shared)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.model.lock().open.now -= 1;
    }
}

async fn converse(mut stream: TcpStream, shared: &Shared) {
    let mut unread = Vec::new();
    while let Some(request) = read(&mut stream, &mut unread).await {
        audible(shared).await;
        let door = *shared.door.borrow();
        match door {
            Door::Closed => return,
            Door::Answers(status) => {
                shared.model.lock().open.refused += 1;
                if write(&mut stream, status, &Value::Null).await.is_err() {
                    return;
                }
                continue;
            }
            Door::Open | Door::Silent => {}
        }
        if let Some(key) = &request.websocket_key {
            return events(stream, key, shared).await;
        }
        let mut nothing = [0];
        let answered = tokio::select! {
            answered = answer(&request, shared) => answered,
            // The asker has given up.
            _ = stream.peek(&mut nothing) => None,
        };
        let Some((status, body)) = answered else { return };
        audible(shared).await;
        if write(&mut stream, status, &body).await.is_err() {
            return;
        }
    }
}

/// Waits while packets get lost.
async fn audible(shared: &Shared) {
    turned(shared, |door| door != Door::Silent).await;
}

async fn turned(shared: &Shared, is_so: impl Fn(Door) -> bool) {
    let mut door = shared.door.subscribe();
    drop(door.wait_for(|door| is_so(*door)).await);
}

/// What is answered to a command; none = the connection is closed.
async fn answer(request: &Request, shared: &Shared) -> Option<(u16, Value)> {
    let (command, target) = meaning(request);
    let fault = shared.model.lock().fault(command);
    match fault {
        Some(Fault::Lost) => return None,
        Some(Fault::Refused(status)) => return Some((status, Value::Null)),
        Some(Fault::ChannelDies) => {
            let named = request.body["channel"].as_str().unwrap_or(&target);
            shared.model.lock().remove(named);
            return Some((204, Value::Null));
        }
        _ => {}
    }
    let done = match command {
        "hang up" => {
            let cause =
                request.query.strip_prefix("reason_code=").and_then(|code| code.parse().ok());
            shared.model.lock().release(&target, cause.unwrap_or_default())
        }
        _ => shared.model.lock().carry_out(command, &target, &request.body),
    };
    match fault {
        Some(Fault::AnsweredLate(after)) => {
            tokio::time::sleep(after).await;
            Some(done)
        }
        Some(Fault::AnswerLost) => None,
        Some(Fault::Unanswered) => std::future::pending().await,
        Some(Fault::DoneButRefused(status)) => Some((status, Value::Null)),
        _ => Some(done),
    }
}

/// Which command it is, by the names that the service's figures use, and on what.
fn meaning(request: &Request) -> (&'static str, String) {
    let parts: Vec<&str> = request.path.split('/').collect();
    let (command, target) = match (request.method.as_str(), &parts[..]) {
        ("POST", ["channels", "create"]) => ("create channel", ""),
        ("POST", ["channels", id, "dial"]) => ("dial", *id),
        ("POST", ["channels", id, "answer"]) => ("answer", *id),
        ("DELETE", ["channels", id]) => ("hang up", *id),
        ("GET", ["channels", id]) => ("look up channel", *id),
        ("GET", ["channels"]) => ("list channels", ""),
        ("GET", ["bridges"]) => ("list bridges", ""),
        ("POST", ["bridges", id]) => ("create bridge", *id),
        ("DELETE", ["bridges", id]) => ("destroy bridge", *id),
        ("POST", ["bridges", id, "addChannel"]) => ("add to bridge", *id),
        ("POST", ["bridges", id, "removeChannel"]) => ("remove from bridge", *id),
        ("POST", ["events", "user", name]) => ("probe", *name),
        ("POST", ["asterisk", "variable"]) => ("set variable", &*request.query),
        ("GET", ["asterisk", "info"]) => ("ask for the startup time", ""),
        ("PUT", ["applications", _, "eventFilter"]) => ("filter events", ""),
        ("PUT", ["asterisk", "modules", module]) => ("reload module", *module),
        _ => ("unknown", ""),
    };
    (command, target.to_owned())
}

/// Speaks as the event socket, until it breaks or is replaced.
async fn events(mut stream: TcpStream, key: &str, shared: &Shared) {
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    if stream.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    let (says, mut said) = mpsc::unbounded_channel();
    {
        let mut model = shared.model.lock();
        model.connections += 1;
        model.socket = Some(says.clone());
        // What was wrong with the one before is over.
        if model.flow == Flow::Nothing {
            model.flow = Flow::Passing;
        }
    }
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    loop {
        audible(shared).await;
        tokio::select! {
            () = turned(shared, |door| door == Door::Silent) => {}
            say = said.recv() => match say {
                Some(Say::Text(text)) => {
                    if socket.send(Message::text(text)).await.is_err() {
                        break;
                    }
                }
                Some(Say::Break) | None => break,
            },
            frame = socket.next() => match frame {
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    let mut model = shared.model.lock();
    if model.socket.as_ref().is_some_and(|current| current.same_channel(&says)) {
        model.socket = None;
    }
}

async fn read(stream: &mut TcpStream, unread: &mut Vec<u8>) -> Option<Request> {
    let head_end = loop {
        if let Some(end) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        more(stream, unread).await?;
    };
    let head = String::from_utf8_lossy(&unread[..head_end]).into_owned();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while unread.len() < head_end + length {
        more(stream, unread).await?;
    }
    let body = serde_json::from_slice(&unread[head_end..head_end + length]).unwrap_or_default();
    let mut words = head.split(' ');
    let method = words.next()?.to_owned();
    let (path, query) =
        words.next().map(|target| target.split_once('?').unwrap_or((target, "")))?;
    let request = Request {
        method,
        path: path.strip_prefix("/ari/")?.to_owned(),
        query: query.to_owned(),
        websocket_key: header("sec-websocket-key"),
        body,
    };
    unread.drain(..head_end + length);
    Some(request)
}

async fn more(stream: &mut TcpStream, unread: &mut Vec<u8>) -> Option<()> {
    let read = stream.read_buf(unread).await.ok()?;
    (read > 0).then_some(())
}

async fn write(stream: &mut TcpStream, status: u16, body: &Value) -> std::io::Result<()> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = if status == 204 {
        String::new()
    } else {
        format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
    };
    stream.write_all(format!("HTTP/1.1 {status} Scripted\r\n{length}\r\n{body}").as_bytes()).await
}

//! The console: a web page for operators and sellers, carried in the binary.
//!
//! It is made from `console/` and talks to the same API as anybody. Nothing in it
//! comes from outside: the content security policy forbids the browser to run,
//! show or ask anything but what this service serves. A binary that was built
//! without it says so at the same place.

use poem::endpoint::make_sync;
use poem::http::{StatusCode, header};
use poem::{Endpoint, Request, Response};

/// A file with its path below `/console/`.
pub type File = (&'static str, &'static [u8]);

/// What was built; nothing where there was no Node.js to build it with.
pub const BUILT: &[File] = include!(concat!(env!("OUT_DIR"), "/console.rs"));

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The build names these by their content, so they never change.
const NAMED_BY_CONTENT: &str = "assets/";

const NOT_BUILT: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>CapConduit: no console</title>
<h1>This program was built without its console</h1>
<p>The console is made with Node.js 20.19 or newer, which wasn't there, or its packages
couldn't be fetched. Calls are routed all the same, and the API is whole.</p>
<p>To have it: run <code>make console</code> in the checkout, which fetches Node.js too where
there is none and says what is amiss if it fails; then build and start the service again.</p>
<p>Meanwhile: <a href=\"/docs/admin\">the API for admins</a>,
<a href=\"/docs/seller\">the API for sellers</a>.</p>
</html>
";

/// Serves these files; the page itself at the root.
pub fn pages(files: &'static [File]) -> impl Endpoint {
    make_sync(move |request| serve(files, &request))
}

fn serve(files: &'static [File], request: &Request) -> Response {
    let asked = request.uri().path().trim_matches('/');
    let asked = if asked.is_empty() { "index.html" } else { asked };
    let found = files.iter().find(|(name, _)| *name == asked);
    match found {
        Some((name, content)) => answer(StatusCode::OK, name, content),
        None if files.is_empty() => {
            answer(StatusCode::NOT_IMPLEMENTED, "index.html", NOT_BUILT.as_bytes())
        }
        None => answer(StatusCode::NOT_FOUND, "", b"There is no such file of the console.\n"),
    }
}

fn answer(status: StatusCode, name: &str, content: &'static [u8]) -> Response {
    let cache = if name.starts_with(NAMED_BY_CONTENT) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    Response::builder()
        .status(status)
        .content_type(content_type(name))
        .header(header::CACHE_CONTROL, cache)
        .header(header::CONTENT_SECURITY_POLICY, POLICY)
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::X_FRAME_OPTIONS, "DENY")
        .header(header::REFERRER_POLICY, "no-referrer")
        .body(content)
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("woff2") => "font/woff2",
        _ => "text/plain; charset=utf-8",
    }
}

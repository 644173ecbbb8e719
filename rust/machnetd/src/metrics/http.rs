//! As much of HTTP as a scrape needs: `GET` and `HEAD` of `/metrics`, one request a connection, every other answered with what is wrong.

/// What to do with the bytes that came so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Wait for more.
    Unfinished,
    /// Answer with the page.
    Page(Extent),
    /// Answer with this.
    Refused(Status, Extent),
}

/// How much of an answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// What goes before the body (`HEAD`).
    Head,
}

/// Why somebody gets no page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is not HTTP.
    BadRequest,
    /// There is nothing else here.
    NotFound,
    /// The page is only to be read.
    MethodNotAllowed,
    /// It does not end.
    TooLarge,
}

/// Reads what came from a client.
pub fn read(bytes: &[u8]) -> Request {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST => return Request::Unfinished,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Request::Refused(Status::TooLarge, Extent::Whole);
        }
        Err(_) => return Request::Refused(Status::BadRequest, Extent::Whole),
    }
    let extent = if request.method == Some("HEAD") { Extent::Head } else { Extent::Whole };
    // Prometheus sends parameters where it is told to; they mean nothing here.
    let path = request.path.and_then(|target| target.split('?').next());
    match (request.method, path) {
        (Some("GET" | "HEAD"), Some(PATH)) => Request::Page(extent),
        (_, Some(PATH)) => Request::Refused(Status::MethodNotAllowed, extent),
        _ => Request::Refused(Status::NotFound, extent),
    }
}

/// The page, with what goes before it.
pub fn found(page: &str, extent: Extent) -> Vec<u8> {
    response("200 OK", "text/plain; version=0.0.4; charset=utf-8", "", page, extent)
}

/// Why there is no page.
pub fn refused(status: Status, extent: Extent) -> Vec<u8> {
    let (line, more) = match status {
        Status::BadRequest => ("400 Bad Request", ""),
        Status::NotFound => ("404 Not Found", ""),
        Status::MethodNotAllowed => ("405 Method Not Allowed", "Allow: GET, HEAD\r\n"),
        Status::TooLarge => ("431 Request Header Fields Too Large", ""),
    };
    let body = format!("{line}: machnetd answers GET {PATH} only\n");
    response(line, "text/plain; charset=utf-8", more, &body, extent)
}

fn response(status: &str, kind: &str, more: &str, body: &str, extent: Extent) -> Vec<u8> {
    let length = body.len();
    let body = if extent == Extent::Head { "" } else { body };
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{more}");
    format!("{head}Connection: close\r\n\r\n{body}").into_bytes()
}

/// Bytes of a request that are kept.
pub const LONGEST: usize = 8 << 10;
/// Fields of a request.
const HEADERS: usize = 64;
const PATH: &str = "/metrics";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_known_when_it_is_whole() {
        let scrape = b"GET /metrics HTTP/1.1\r\nHost: a:9464\r\nAccept: text/plain\r\n\r\n";
        assert_eq!(read(scrape), Request::Page(Extent::Whole));
        for end in 0..scrape.len() {
            assert_eq!(read(&scrape[..end]), Request::Unfinished, "{end} bytes");
        }
        assert_eq!(read(b"GET /metrics?x=1 HTTP/1.0\r\n\r\n"), Request::Page(Extent::Whole));
        assert_eq!(read(b"GET /metrics HTTP/1.1\n\n"), Request::Page(Extent::Whole));
    }

    #[test]
    fn anything_else_is_refused_by_its_status() {
        let long = [b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &[b'x'; LONGEST]].concat();
        let many = format!("GET /metrics HTTP/1.1\r\n{}", "a: b\r\n".repeat(HEADERS + 1));
        for (bytes, status) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], Status::NotFound),
            (b"GET /metrics/x HTTP/1.1\r\n\r\n", Status::NotFound),
            (b"POST / HTTP/1.1\r\n\r\n", Status::NotFound),
            (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", Status::MethodNotAllowed),
            (b"\x16\x03\x01\x02\x00\x01", Status::BadRequest),
            (b"GET /metrics HTTP/9\r\n\r\n", Status::BadRequest),
            (&long, Status::TooLarge),
            (many.as_bytes(), Status::TooLarge),
        ] {
            assert_eq!(
                read(bytes),
                Request::Refused(status, Extent::Whole),
                "{}",
                String::from_utf8_lossy(bytes)
            );
            let answer = String::from_utf8(refused(status, Extent::Whole)).expect("text");
            assert!(
                answer.starts_with("HTTP/1.1 4") && answer.contains("Connection: close\r\n\r\n"),
                "{answer}"
            );
        }
    }

    #[test]
    fn who_asks_for_a_head_gets_no_body() {
        assert_eq!(read(b"HEAD /metrics HTTP/1.1\r\n\r\n"), Request::Page(Extent::Head));
        let nothing = read(b"HEAD / HTTP/1.1\r\n\r\n");
        assert_eq!(nothing, Request::Refused(Status::NotFound, Extent::Head));
        assert!(refused(Status::NotFound, Extent::Head).ends_with(b"close\r\n\r\n"));
    }

    #[test]
    fn a_response_says_how_long_it_is() {
        let answer = |extent| String::from_utf8(found("a 1\n", extent)).expect("text");
        let (head, _) = answer(Extent::Whole)
            .split_once("a 1")
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .expect("a body");
        assert_eq!(answer(Extent::Head), head, "the same without the body");
        assert_eq!(
            answer(Extent::Whole),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: 4\r\nConnection: close\r\n\r\na 1\n"
        );
    }
}

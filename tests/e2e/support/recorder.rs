//! An HTTP/1.1 upstream that believes nothing: it reads what the proxy sends by the letter of RFC 9112, and keeps
//! every request that came whole. What could be read in two ways is kept as doubtful.

use parking_lot::{Mutex, MutexGuard};
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// One request as it came, in full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: String,
    pub trailers: Vec<(String, String)>,
}

impl Recorded {
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }

    /// Method, path and body, as the corpus writes them.
    pub fn line(&self) -> String {
        format!("{} {} {:?}", self.method, self.path, self.body)
    }
}

/// What all connections brought.
#[derive(Debug, Default)]
pub struct Brought {
    pub requests: Vec<Recorded>,
    /// What two readers need not agree on; must stay empty.
    pub doubtful: Vec<String>,
}

/// The running upstream; its threads end with their connections.
pub struct Recorder {
    address: SocketAddr,
    brought: Arc<Mutex<Brought>>,
}

impl Recorder {
    pub fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let brought: Arc<Mutex<Brought>> = Arc::default();
        let kept = Arc::clone(&brought);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || serve(&stream, &kept));
            }
        });
        Recorder { address, brought }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn brought(&self) -> MutexGuard<'_, Brought> {
        self.brought.lock()
    }
}

/// Why reading ended.
enum End {
    /// The connection did, perhaps within a request.
    Gone,
    Doubt(String),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> End {
        End::Gone
    }
}

fn serve(mut stream: &TcpStream, kept: &Mutex<Brought>) {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    loop {
        match request(&mut reader) {
            Ok(request) => {
                let answer = format!("{} {}", request.method, request.body.len());
                let body = if request.method == "HEAD" { "" } else { &answer };
                kept.lock().requests.push(request);
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", answer.len());
                if stream.write_all(head.as_bytes()).is_err() {
                    return;
                }
            }
            Err(End::Gone) => return,
            Err(End::Doubt(what)) => {
                kept.lock().doubtful.push(what);
                return;
            }
        }
    }
}

fn request(reader: &mut impl Read) -> Result<Recorded, End> {
    let first = line(reader)?;
    let mut words = first.split(' ');
    let (Some(method), Some(path), Some("HTTP/1.1"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(End::Doubt(format!("request line {first:?}")));
    };
    let mut request = Recorded { method: method.to_owned(), path: path.to_owned(), ..Recorded::default() };
    request.fields = fields(reader)?;
    let (lengths, codings) = (request.all("content-length"), request.all("transfer-encoding"));
    if request.all("host").len() != 1 || lengths.len() + codings.len() > 1 {
        return Err(End::Doubt(format!("{request:?}")));
    }
    match (lengths.first(), codings.first()) {
        (Some(length), _) => {
            let length = length.parse().map_err(|_| End::Doubt(format!("{request:?}")))?;
            request.body = exactly(reader, length)?;
        }
        (_, Some(&"chunked")) => (request.body, request.trailers) = chunks(reader)?,
        (_, Some(_)) => return Err(End::Doubt(format!("{request:?}"))),
        (None, None) => {}
    }
    Ok(request)
}

/// A line without its CRLF; a bare CR or LF, or NUL, is doubtful.
fn line(reader: &mut impl Read) -> Result<String, End> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    loop {
        reader.read_exact(&mut byte)?;
        bytes.push(byte[0]);
        if bytes.ends_with(b"\r\n") {
            let text = String::from_utf8_lossy(&bytes[..bytes.len() - 2]).into_owned();
            return match text.contains(['\r', '\n', '\0']) {
                true => Err(End::Doubt(format!("line {text:?}"))),
                false => Ok(text),
            };
        }
    }
}

fn fields(reader: &mut impl Read) -> Result<Vec<(String, String)>, End> {
    let mut fields = Vec::new();
    loop {
        let line = line(reader)?;
        if line.is_empty() {
            return Ok(fields);
        }
        match line.split_once(": ") {
            Some((name, value)) if !name.is_empty() && !name.contains([' ', '\t']) => {
                fields.push((name.to_lowercase(), value.to_owned()));
            }
            // A field without a value.
            _ if line.ends_with(':') => {
                fields.push((line.trim_end_matches(':').to_lowercase(), String::new()))
            }
            _ => return Err(End::Doubt(format!("field {line:?}"))),
        }
    }
}

fn exactly(reader: &mut impl Read, count: usize) -> Result<String, End> {
    let mut bytes = vec![0; count];
    reader.read_exact(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn chunks(reader: &mut impl Read) -> Result<(String, Vec<(String, String)>), End> {
    let mut body = String::new();
    loop {
        let size = line(reader)?;
        let count =
            usize::from_str_radix(&size, 16).map_err(|_| End::Doubt(format!("chunk size {size:?}")))?;
        if count == 0 {
            return Ok((body, fields(reader)?));
        }
        body += &exactly(reader, count)?;
        if !line(reader)?.is_empty() {
            return Err(End::Doubt("a chunk longer than it says".to_owned()));
        }
    }
}

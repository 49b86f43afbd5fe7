//! Values of flags: text to what it means, or the reason why not in the words of the one who typed it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// `FROM:TO`: the server with port FROM in the YAML listens on TO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMap {
    /// As in the YAML.
    pub from: u16,
    /// Where it listens.
    pub to: u16,
}

impl FromStr for PortMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once(':').ok_or("write FROM:TO, for instance 80:8080")?;
        let from = port(from)?;
        if from == 0 {
            return Err("FROM is the port in the YAML, 1 to 65535".to_owned());
        }
        Ok(PortMap { from, to: port(to)? })
    }
}

impl fmt::Display for PortMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.from, self.to)
    }
}

/// `NAME=COMMAND`, the command known to split into words as a shell would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The function, `namespace/function`, or a revision.
    pub name: String,
    /// As written.
    pub command: String,
}

impl FromStr for Exec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, command) =
            text.split_once('=').ok_or("write NAME='command', for instance hello='python3 app.py'")?;
        let (name, command) = (name.trim(), command.trim());
        if name.is_empty() {
            return Err("there is no function name before '='".to_owned());
        }
        match shlex::split(command) {
            None => Err("a quote in the command is not closed".to_owned()),
            Some(words) if words.is_empty() => Err(format!("the command of {name} is empty")),
            Some(_) => Ok(Exec { name: name.to_owned(), command: command.to_owned() }),
        }
    }
}

/// `256Mi`, `1G`, `1000`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let millis = proxy_config::units::quantity_millis(text).ok().filter(|millis| millis % 1000 == 0);
    let bytes = millis.and_then(|millis| u64::try_from(millis / 1000).ok());
    bytes.ok_or_else(|| "write a number of bytes, for instance 256Mi".to_owned())
}

/// `IP:PORT`, `[IP6]:PORT` or `localhost:PORT`.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some(rest) = text.strip_prefix("localhost:") {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port(rest)?));
    }
    let digits = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = digits.parse::<u16>() {
        return Err(format!("write the IP too: 127.0.0.1:{port} for this host only, 0.0.0.0:{port} for all"));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err("the port is missing; write IP:PORT".to_owned());
    }
    Err("write IP:PORT, for instance 127.0.0.1:15000".to_owned())
}

/// A port; 0: any free one.
fn port(text: &str) -> Result<u16, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is not a port (0 to 65535)"))
}

/// A length of time in Go's syntax: `1h30m`, `1.5s`, `100ms`, `0`; at most a year.
pub fn duration(text: &str) -> Result<Duration, String> {
    let length = proxy_config::units::duration(text)?;
    if length > Duration::from_secs(365 * 86_400) {
        return Err(format!("duration {text:?} is longer than a year"));
    }
    Ok(length)
}

/// A DNS label: what Kubernetes takes as a namespace.
pub fn label(text: &str) -> Result<String, String> {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty()
        || text.len() > 63
        || !text.chars().all(ok)
        || text.starts_with('-')
        || text.ends_with('-')
    {
        return Err(
            "use lower-case letters, digits and '-', at most 63, beginning and ending with no '-'".to_owned()
        );
    }
    Ok(text.to_owned())
}

/// A DNS name of labels, without port or final dot.
pub fn domain(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    if lower.len() > 253 {
        return Err("a domain has at most 253 characters".to_owned());
    }
    for part in lower.split('.') {
        label(part).map_err(|reason| format!("{part:?} is not a part of a domain: {reason}"))?;
    }
    Ok(lower)
}

/// A level, or a filter in the syntax of `tracing`.
pub fn log_level(text: &str) -> Result<String, String> {
    crate::control::log::parse(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: PartialEq + fmt::Debug>(
        parse: impl Fn(&str) -> Result<T, String>,
        rows: &[(&str, Option<T>)],
    ) {
        for (text, wanted) in rows {
            assert_eq!(parse(text).ok().as_ref(), wanted.as_ref(), "{text:?}");
        }
    }

    #[test]
    fn durations_are_written_as_in_go() {
        let ms = |n| Some(Duration::from_millis(n));
        check(
            duration,
            &[
                ("0", ms(0)),
                ("0s", ms(0)),
                ("5s", ms(5000)),
                ("1.5s", ms(1500)),
                ("100ms", ms(100)),
                ("1m30s", ms(90_000)),
                ("1h", ms(3_600_000)),
                ("", None),
                ("5", None),
                ("s", None),
                ("-5s", None),
                ("5 s", None),
                ("5d", None),
                ("1e9s", None),
                ("99999999999999h", None),
            ],
        );
    }

    #[test]
    fn an_address_names_ip_and_port() {
        check(
            address,
            &[
                ("127.0.0.1:15000", Some(([127, 0, 0, 1], 15000).into())),
                ("localhost:1", Some(([127, 0, 0, 1], 1).into())),
                ("[::1]:80", "[::1]:80".parse().ok()),
                (":15000", None),
                ("15000", None),
                ("::1", None),
                ("example.com:80", None),
            ],
        );
        assert!(address(":9").unwrap_err().contains("127.0.0.1:9"));
    }

    #[test]
    fn a_port_map_names_two_ports() {
        check(
            str::parse::<PortMap>,
            &[
                ("80:8080", Some(PortMap { from: 80, to: 8080 })),
                ("80:0", Some(PortMap { from: 80, to: 0 })),
                ("0:80", None),
                ("80", None),
                ("80:x", None),
            ],
        );
    }

    #[test]
    fn exec_names_a_function_and_a_command_of_shell_words() {
        let exec =
            |name: &str, command: &str| Some(Exec { name: name.to_owned(), command: command.to_owned() });
        check(
            str::parse::<Exec>,
            &[
                ("hello=python3 app.py", exec("hello", "python3 app.py")),
                ("a=sh -c 'x=1; echo $x'", exec("a", "sh -c 'x=1; echo $x'")),
                ("default/a= x ", exec("default/a", "x")),
                ("hello", None),
                ("=x", None),
                ("hello=", None),
                ("hello='x", None),
            ],
        );
    }

    #[test]
    fn names_are_dns_names() {
        check(label, &[("default", Some("default".to_owned())), ("", None), ("a.b", None), ("-a", None)]);
        check(domain, &[("Example.com", Some("example.com".to_owned())), ("a..b", None), ("a:80", None)]);
    }
}

//! `pilotlight certs`: a development authority and certificates from it, to try mutual TLS with.
//!
//! What it makes is for laptops and tests: the authority's key lies beside it. It never replaces an authority,
//! and no key of it can be read by others.

mod authority;

pub use authority::{Authority, Issued, Names};

use super::values;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `pilotlight certs`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Writes DIR/ca.crt and DIR/ca.key once, and again at each call for each workload\n\
                        DIR/NS/SA/cert-chain.pem, key.pem and root-cert.pem: what --certs wants to be given,\n\
                        and for each host DIR/hosts/HOST/tls.crt, tls.key and ca.crt.")]
pub struct CertsArgs {
    /// Workloads, as namespace and service account
    #[arg(value_name = "NS/SA", value_parser = workload)]
    pub workloads: Vec<(String, String)>,

    /// Where certificates go; an authority that is there already is used again
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,

    /// The mesh's trust domain
    #[arg(long, value_name = "NAME", default_value = "cluster.local", value_parser = values::domain)]
    pub trust_domain: String,

    /// A server certificate for this DNS name; repeatable
    #[arg(long = "host", value_name = "NAME", value_parser = host)]
    pub hosts: Vec<String>,

    /// How long certificates are valid (the authority: ten years)
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = values::duration)]
    pub validity: Duration,
}

fn workload(text: &str) -> Result<(String, String), String> {
    let wrong = || "write NAMESPACE/SERVICEACCOUNT, for instance default/orders".to_owned();
    let (namespace, account) = text.split_once('/').ok_or_else(wrong)?;
    match (values::label(namespace), values::label(account)) {
        (Ok(namespace), Ok(account)) => Ok((namespace, account)),
        _ => Err(wrong()),
    }
}

fn host(text: &str) -> Result<String, String> {
    values::domain(text.strip_prefix("*.").unwrap_or(text)).map(|_| text.to_owned())
}

/// `pilotlight certs`.
pub fn run(args: &CertsArgs) -> ExitCode {
    match write(args) {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("pilotlight: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(args: &CertsArgs) -> Result<Vec<String>, String> {
    let (authority, made) = Authority::in_directory(&args.out, &args.trust_domain)?;
    let ca = args.out.join("ca.crt");
    let mut lines = vec![format!("{}: {}", ca.display(), if made { "made" } else { "used again" })];
    for (namespace, account) in &args.workloads {
        let names = Names::Workload { namespace, account };
        let directory = args.out.join(namespace).join(account);
        let issued = authority.issue(&names, args.validity)?;
        issued.write(&directory, ["cert-chain.pem", "key.pem", "root-cert.pem"])?;
        lines.push(told(&directory, &issued));
    }
    for host in &args.hosts {
        let directory = args.out.join("hosts").join(host.replace('*', "_"));
        let issued = authority.issue(&Names::Host(host), args.validity)?;
        issued.write(&directory, ["tls.crt", "tls.key", "ca.crt"])?;
        lines.push(told(&directory, &issued));
    }
    Ok(lines)
}

fn told(directory: &Path, issued: &Issued) -> String {
    format!("{}: {}", directory.display(), issued.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn args(out: &Path, trust_domain: &str) -> CertsArgs {
        CertsArgs {
            workloads: vec![("default".to_owned(), "orders".to_owned())],
            out: out.to_owned(),
            trust_domain: trust_domain.to_owned(),
            hosts: vec!["*.shop.example".to_owned()],
            validity: Duration::from_secs(60),
        }
    }

    #[test]
    fn an_authority_is_made_once_used_again_and_never_replaced() {
        let out = std::env::temp_dir().join(format!("pilotlight-certs-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&out);
        let first = write(&args(&out, "td")).unwrap();
        assert!(first[0].ends_with("made"), "{first:?}");
        assert!(first[1].ends_with("spiffe://td/ns/default/sa/orders"), "{first:?}");
        let authority = std::fs::read(out.join("ca.crt")).unwrap();
        let chain = || std::fs::read(out.join("default/orders/cert-chain.pem")).unwrap();
        let before = chain();
        assert!(write(&args(&out, "td")).unwrap()[0].ends_with("used again"));
        assert_eq!(std::fs::read(out.join("ca.crt")).unwrap(), authority);
        assert_ne!(chain(), before);
        assert!(write(&args(&out, "other")).unwrap_err().contains("not replaced"));
        for key in ["ca.key", "default/orders/key.pem", "hosts/_.shop.example/tls.key"] {
            let mode = std::fs::metadata(out.join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        std::fs::copy(out.join("default/orders/key.pem"), out.join("ca.key")).unwrap();
        assert!(write(&args(&out, "td")).unwrap_err().contains("key of another"));
        std::fs::remove_dir_all(&out).unwrap();
    }

    #[test]
    fn workloads_and_hosts_are_names() {
        assert!(workload("default/orders").is_ok());
        for wrong in ["orders", "a/b/c", "/b", "A b/c"] {
            assert!(workload(wrong).is_err(), "{wrong}");
        }
        assert!(host("*.shop.example").is_ok() && host("a b").is_err());
    }
}

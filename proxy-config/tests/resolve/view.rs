//! A configuration as a few lines of text, so that tests are tables of YAML and lines.

use proxy_config::load::{File, Loaded, Options, load};
use proxy_config::model::{Action, Config, Endpoints, Match, PathRewrite, Route, StringMatch, Table, Tables};
use std::path::PathBuf;

/// Loads named texts.
pub fn load_files(files: &[(&str, &str)], options: &Options, previous: Option<&Loaded>) -> Loaded {
    let files: Vec<File> = files
        .iter()
        .map(|(path, text)| File { path: PathBuf::from(path), text: Ok((*text).into()) })
        .collect();
    let mut loaded = load(&files, options, previous.map(|loaded| &loaded.kept));
    assert!(loaded.kept.config(options) == loaded.config, "what is kept means the same");
    loaded.kept.share(&files);
    loaded
}

/// Loads one text as `a.yaml` in namespace `default`.
pub fn load_text(text: &str) -> Loaded {
    load_files(&[("a.yaml", text)], &Options::default(), None)
}

/// Errors and warnings, one a line, without file names and help: `3:7 error IST0101 …`.
pub fn findings(loaded: &Loaded) -> Vec<String> {
    let shown = loaded.report.shown();
    shown.map(|p| format!("{} {} {} {}", p.at, p.level.as_str(), p.code, p.message)).collect()
}

/// Every route: `listener domains [conditions] -> action`.
pub fn routes(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    for listener in &config.listeners {
        match &listener.tables {
            Tables::One(table) => table_lines(&listener.name, table, &mut lines),
            Tables::ByPort(tables) => {
                for (port, table) in tables {
                    table_lines(&format!("{}:{port}", listener.name), table, &mut lines);
                }
            }
        }
    }
    lines
}

/// The routes whose line begins with `start`, that beginning cut off.
pub fn routes_at(config: &Config, start: &str) -> Vec<String> {
    let all = routes(config);
    all.iter().filter_map(|line| line.strip_prefix(start)).map(|rest| rest.trim_start().to_owned()).collect()
}

fn table_lines(name: &str, table: &Table, lines: &mut Vec<String>) {
    for host in &table.hosts {
        let domains = host.domains.join(",");
        if host.routes.is_empty() {
            lines.push(format!("{name} {domains} nothing"));
        }
        for route in &host.routes {
            lines.push(format!("{name} {domains} {}", route_line(route)));
        }
    }
}

fn route_line(route: &Route) -> String {
    let conditions = conditions(&route.matches);
    let action = match &route.action {
        Action::Forward(forward) => {
            let to = forward.destinations.iter().map(|d| format!("{}={}", d.cluster, d.weight));
            let rewrite = match &forward.rewrite.path {
                None => String::new(),
                Some(PathRewrite::Prefix { from_len, with }) => format!(" rewrite {from_len}:{with}"),
                Some(PathRewrite::Full(with)) => format!(" rewrite {with}"),
                Some(PathRewrite::Regex { pattern, with }) => format!(" rewrite {pattern}:{with}"),
            };
            to.collect::<Vec<_>>().join(" ") + &rewrite
        }
        Action::Redirect(redirect) => format!("redirect {}", redirect.code),
        Action::Direct(direct) => format!("direct {}", direct.status),
    };
    format!("{conditions}-> {action}")
}

fn conditions(matches: &Match) -> String {
    let mut text = String::new();
    let mut add = |name: &str, condition: &StringMatch| {
        let condition = match condition {
            StringMatch::Exact(value) => format!("{name}=={value} "),
            StringMatch::Prefix(value) => format!("{name}^={value} "),
            StringMatch::Regex(value) => format!("{name}~={value} "),
            StringMatch::Present => format!("{name} "),
        };
        text.push_str(&condition);
    };
    matches.uri.iter().for_each(|uri| add("uri", uri));
    matches.method.iter().for_each(|method| add("method", method));
    matches.headers.iter().for_each(|(name, value)| add(name, value));
    text
}

/// Every cluster: `name: endpoints`.
pub fn clusters(config: &Config) -> Vec<String> {
    let lines = config.clusters.iter().map(|cluster| {
        let endpoints: Vec<String> = match &cluster.endpoints {
            Endpoints::Static(all) => all.iter().map(|e| e.address.to_string()).collect(),
            Endpoints::Dns(all) => all.iter().map(|e| format!("{}:{}", e.host, e.port)).collect(),
            Endpoints::Revision(key) => vec![key.clone()],
        };
        format!("{}: {}", cluster.name, endpoints.join(" "))
    });
    lines.collect()
}

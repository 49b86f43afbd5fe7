//! The Prometheus text format, as far as tests ask questions of it.

/// One scrape.
pub struct Metrics {
    samples: Vec<(String, Vec<(String, String)>, f64)>,
}

impl Metrics {
    pub fn parse(text: &str) -> Metrics {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect();
        Metrics { samples }
    }

    /// The sum over all series of `name` that carry all of `labels`; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples
            .iter()
            .filter(|(n, own, _)| {
                n == name && labels.iter().all(|l| own.iter().any(|(k, v)| (&**k, &**v) == *l))
            })
            .map(|(_, _, value)| value)
            .sum()
    }

    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|(n, _, _)| n == name)
    }
}

fn sample(line: &str) -> Option<(String, Vec<(String, String)>, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = series.split_once('{') else {
        return Some((series.to_owned(), Vec::new(), value));
    };
    let labels = labels
        .trim_end_matches('}')
        .split("\",")
        .filter_map(|pair| pair.split_once("=\""))
        .map(|(key, value)| (key.to_owned(), value.trim_end_matches('"').to_owned()))
        .collect();
    Some((name.to_owned(), labels, value))
}

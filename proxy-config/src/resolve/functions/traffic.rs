//! A function's `traffic`: which revision gets how much, and which has a tag.
//!
//! Pure: names in, names out. A name that no revision has is kept, so that its share fails and no other.

use std::collections::BTreeMap;

/// One entry of `spec.traffic`.
pub(crate) struct Target {
    /// Unset counts as 0, as in Knative.
    pub percent: u32,
    /// Reachable under this name too, whatever the percentage.
    pub tag: Option<String>,
    /// `None`: the latest.
    pub revision: Option<String>,
}

/// What `traffic` comes to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Traffic {
    /// Revisions and their percentages; never empty, each revision once, none at 0.
    pub split: Vec<(String, u64)>,
    /// Tag to revision.
    pub tags: BTreeMap<String, String>,
}

impl Traffic {
    /// Whether `revision` gets requests by percentage or tag.
    pub fn reaches(&self, revision: &str) -> bool {
        self.split.iter().any(|(name, _)| name == revision) || self.tags.values().any(|name| name == revision)
    }
}

/// Sums up `targets`. Without any, or without a percentage at all, the latest revision gets everything.
pub(crate) fn resolve(targets: &[Target], latest: &str) -> Traffic {
    let mut traffic = Traffic::default();
    for target in targets {
        let revision = target.revision.as_deref().unwrap_or(latest);
        if target.percent > 0 {
            match traffic.split.iter_mut().find(|(name, _)| name == revision) {
                Some((_, percent)) => *percent += u64::from(target.percent),
                None => traffic.split.push((revision.to_owned(), u64::from(target.percent))),
            }
        }
        if let Some(tag) = &target.tag {
            traffic.tags.entry(tag.clone()).or_insert_with(|| revision.to_owned());
        }
    }
    if traffic.split.is_empty() {
        traffic.split.push((latest.to_owned(), 100));
    }
    traffic
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(targets: &[(u32, &str, &str)], split: &[(&str, u64)], tags: &[(&str, &str)]) {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let targets: Vec<Target> = targets
            .iter()
            .map(|(percent, tag, revision)| Target {
                percent: *percent,
                tag: some(tag),
                revision: some(revision),
            })
            .collect();
        let traffic = resolve(&targets, "f-2");
        let got: Vec<(&str, u64)> =
            traffic.split.iter().map(|(name, percent)| (name.as_str(), *percent)).collect();
        assert_eq!(got, split);
        let got: Vec<(&str, &str)> =
            traffic.tags.iter().map(|(tag, name)| (tag.as_str(), name.as_str())).collect();
        assert_eq!(got, tags);
    }

    #[test]
    fn without_traffic_the_latest_gets_everything() {
        check(&[], &[("f-2", 100)], &[]);
    }

    #[test]
    fn shares_of_one_revision_add_up() {
        check(&[(60, "", "f-1"), (30, "", ""), (10, "", "f-2")], &[("f-1", 60), ("f-2", 40)], &[]);
    }

    #[test]
    fn a_tag_without_percentage_is_reachable_by_its_tag_alone() {
        check(&[(100, "", "f-1"), (0, "next", "")], &[("f-1", 100)], &[("next", "f-2")]);
    }

    #[test]
    fn a_revision_that_does_not_exist_keeps_its_share() {
        check(&[(50, "", "f-9"), (50, "", "")], &[("f-9", 50), ("f-2", 50)], &[]);
    }
}

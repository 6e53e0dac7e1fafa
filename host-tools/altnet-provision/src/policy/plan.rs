//! What a new policy would change: who gains and loses what, asked of the rules themselves.
//!
//! Both policies are put to work as on a node and asked for every source and target. Those that
//! no rule tells apart are asked once and told together, so that a thousand members come to a
//! few lines. Rules with hours count as open; the hours are told beside.

use std::collections::BTreeSet;

use altnet_core::policy::{Draft, DraftRule, RulesError};
use altnet_core::registry::Registry;
use altnet_wire::policy::Window;
use altnet_wire::time::UnixTime;
use serde::Serialize;

use super::words::{service_text, window_texts};
use super::write::Writer;

mod effects;
mod settings;

/// Names that a line of text has before it only counts.
const SHOWN_NAMES: usize = 6;

/// What would change. The field names are stable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Whether the new policy says anything else than the one in force.
    pub changes: bool,
    /// Names of rules that are new.
    pub added_rules: Vec<String>,
    /// Rules that say something else.
    pub changed_rules: Vec<Changed>,
    /// Names of rules that are gone.
    pub removed_rules: Vec<String>,
    /// Time zone, groups, profiles and the like that change, a sentence each.
    pub settings: Vec<String>,
    /// Who can newly reach what.
    pub gains: Vec<Allowed>,
    /// Who can no longer reach what.
    pub loses: Vec<Allowed>,
    /// Who can reach what at other times than before.
    pub hours: Vec<Allowed>,
}

/// A rule that changes. The field names are stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Its name.
    pub name: String,
    /// What of it, as in `services: tcp/80 -> tcp/80, tcp/443`.
    pub differences: Vec<String>,
}

/// What some may begin with some. The field names are stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Allowed {
    /// Who: `device:`, `host:` and `app:` with names, `site:` for machines there without a name.
    pub from: Vec<String>,
    /// With whom.
    pub to: Vec<String>,
    /// By which services.
    pub services: Vec<String>,
    /// By which rules.
    pub rules: Vec<String>,
    /// At which times; empty for always.
    pub when: Vec<String>,
    /// At which times before, if only those change.
    pub was: Vec<String>,
    /// How many pairs that comes to.
    pub pairs: usize,
}

impl Plan {
    /// Compares what is in force with what is to be.
    ///
    /// # Errors
    /// [`RulesError`] if one of them is no policy.
    pub fn new(old: Option<&Draft>, new: &Draft, registry: &Registry) -> Result<Self, RulesError> {
        let nothing = Draft::default();
        let mut plan = Self::default();
        let before = old.unwrap_or(&nothing);
        plan.compare_rules(before, new, registry);
        plan.compare_settings(before, new, registry);
        plan.settings
            .extend(settings::brought_in(before, new, registry));
        effects::compare(&mut plan, before, new, registry)?;
        let says = |draft: &Draft| Draft {
            issued: UnixTime::EPOCH,
            ..draft.clone()
        };
        plan.changes = old.is_none() || says(before) != says(new);
        Ok(plan)
    }

    fn compare_rules(&mut self, old: &Draft, new: &Draft, registry: &Registry) {
        let find = |draft: &Draft, name| draft.rules.iter().position(|rule| rule.name == name);
        for rule in &new.rules {
            let Some(before) = find(old, rule.name.clone()).and_then(|at| old.rules.get(at)) else {
                self.added_rules.push(rule.name.to_string());
                continue;
            };
            let was = fields(before, &Writer::new(old, registry));
            let is = fields(rule, &Writer::new(new, registry));
            let differences: Vec<String> = was
                .iter()
                .zip(&is)
                .filter(|(was, is)| was != is)
                .map(|((key, was), (_, is))| format!("{key}: {was} -> {is}"))
                .collect();
            if !differences.is_empty() {
                self.changed_rules.push(Changed {
                    name: rule.name.to_string(),
                    differences,
                });
            }
        }
        for rule in &old.rules {
            if find(new, rule.name.clone()).is_none() {
                self.removed_rules.push(rule.name.to_string());
            }
        }
    }

    fn compare_settings(&mut self, old: &Draft, new: &Draft, registry: &Registry) {
        let (was, is) = (settings::of(old, registry), settings::of(new, registry));
        let keys: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
        for key in keys {
            let said = match (was.get(key), is.get(key)) {
                (Some(was), Some(is)) if was == is => continue,
                (Some(was), Some(is)) => format!("{key}: {was} -> {is}"),
                (None, Some(is)) => format!("{key}: {is} (new)"),
                (Some(was), None) => format!("{key}: {was} (gone)"),
                (None, None) => continue,
            };
            self.settings.push(said);
        }
    }
}

/// What a rule says, by the keys of the text.
fn fields(rule: &DraftRule, writer: &Writer<'_>) -> [(&'static str, String); 5] {
    let services: Vec<String> = rule.services.iter().map(service_text).collect();
    [
        ("from", writer.references(&rule.from).join(", ")),
        ("to", writer.references(&rule.to).join(", ")),
        ("services", services.join(", ")),
        ("hours", hours(rule.window.as_ref())),
        ("needs_fresh", rule.needs_fresh_head.to_string()),
    ]
}

fn hours(window: Option<&Window>) -> String {
    let Some(window) = window else {
        return "always".into();
    };
    let clock = match window.open_without_clock {
        true => " (also without a clock)",
        false => "",
    };
    window_texts(window).join(", ") + clock
}

impl Plan {
    /// The plan in lines for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |said: String| {
            text.push_str(&said);
            text.push('\n');
        };
        for name in &self.added_rules {
            line(format!("new rule      {name}"));
        }
        for rule in &self.changed_rules {
            line(format!(
                "changed rule  {}: {}",
                rule.name,
                rule.differences.join("; ")
            ));
        }
        for name in &self.removed_rules {
            line(format!("removed rule  {name}"));
        }
        for said in &self.settings {
            line(format!("changed       {said}"));
        }
        for row in &self.gains {
            line(format!("+ gains       {}", row.text()));
        }
        for row in &self.loses {
            line(format!("- loses       {}", row.text()));
        }
        for row in &self.hours {
            line(format!("~ other times {}", row.text()));
        }
        let pairs = |rows: &[Allowed]| rows.iter().map(|row| row.pairs).sum::<usize>();
        if !self.changes {
            line("Nothing changes.".into());
        } else if self.gains.is_empty() && self.loses.is_empty() && self.hours.is_empty() {
            line("Nobody known here gains or loses anything.".into());
        } else {
            line(format!(
                "Pairs of source and target that gain: {}, lose: {}, at other times: {}.",
                pairs(&self.gains),
                pairs(&self.loses),
                pairs(&self.hours)
            ));
        }
        text
    }
}

impl Allowed {
    fn text(&self) -> String {
        let plural = if self.rules.len() == 1 {
            "rule"
        } else {
            "rules"
        };
        let mut text = format!(
            "{} -> {}: {} ({plural} {}",
            shown(&self.from),
            shown(&self.to),
            self.services.join(", "),
            self.rules.join(", ")
        );
        let when = self.when.join(" or ");
        match (self.was.is_empty(), when.is_empty()) {
            (false, _) => text.push_str(&format!("; {} -> {when}", self.was.join(" or "))),
            (true, false) => text.push_str(&format!("; {when}")),
            (true, true) => {}
        }
        text + ")"
    }
}

fn shown(names: &[String]) -> String {
    let first: Vec<&str> = names.iter().take(SHOWN_NAMES).map(String::as_str).collect();
    let more = match names.len() - first.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    first.join(", ") + &more
}

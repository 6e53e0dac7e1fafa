//! The page: what is wrong with this box, and what to do. HTML without a script, or JSON.

use altnet_update::install::{Progress, Step};
use serde_json::{Value, json};

/// What a page is about.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The board.
    pub board: String,
    /// The release whose initial RAM disk this is.
    pub version: String,
    /// The slot that it is in.
    pub slot: String,
    /// Why the box is here, for people.
    pub why: String,
    /// Whether a bundle is taken, which it isn't while the box serves the house.
    pub is_rescue: bool,
    /// Whether the board has a button.
    pub has_button: bool,
}

/// How things are at the moment.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// How far a release is installed, if one is being.
    pub progress: Option<Progress>,
    /// What became of the last one, for people.
    pub last: Option<String>,
    /// The kernel's last lines.
    pub lines: Vec<String>,
}

/// For programs.
pub fn json(facts: &Facts, state: &State) -> Value {
    let installing = state.progress.map(|progress| {
        json!({ "step": word(progress.step), "done_bytes": progress.done_bytes, "of_bytes": progress.of_bytes })
    });
    json!({
        "state": if facts.is_rescue { "rescue" } else { "serving" },
        "board": facts.board,
        "version": facts.version,
        "slot": facts.slot,
        "why": facts.why,
        "installing": installing,
        "last": state.last,
        "log": state.lines,
    })
}

const fn word(step: Step) -> &'static str {
    match step {
        Step::Writing => "writing",
        Step::Kept => "kept",
        Step::Checking => "checking",
    }
}

/// For people.
pub fn html(facts: &Facts, state: &State) -> String {
    let (title, first) = match facts.is_rescue {
        true => (
            "This box needs help",
            "It routes nothing until it is helped: the house has no internet by it.",
        ),
        false => (
            "This box has lost something",
            "It serves the house meanwhile.",
        ),
    };
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>altnet: {title}</title><style>body{{font:1rem/1.5 sans-serif;max-width:40rem;margin:1rem auto;padding:0 1rem}}\
         pre{{overflow:auto;background:#eee;padding:.5rem;font-size:.8rem}}</style></head><body><h1>{title}</h1><p>{}</p><p>{first}</p>",
        escaped(&facts.why)
    );
    if let Some(progress) = state.progress {
        let percent = 100 * progress.done_bytes / progress.of_bytes.max(1);
        let doing = match progress.step {
            Step::Checking => "read back",
            _ => "written",
        };
        page += &format!(
            "<p><b>A release is being installed: {percent} % {doing}.</b> Leave the box switched on.</p>"
        );
    }
    if let Some(last) = &state.last {
        page += &format!("<p><b>{}</b></p>", escaped(last));
    }
    if facts.is_rescue {
        page += "<h2>Install a release</h2><p>Any release for this board that is signed by keys this box takes. What it has joined and its \
                 settings stay. From a computer: <code>altnet-provision rescue --bundle FILE</code>, or here:</p>\
                 <form method=\"post\" action=\"/\" enctype=\"multipart/form-data\"><input type=\"file\" name=\"bundle\" required> <button>Install it</button></form>\
                 <h2>Or</h2><ul><li>Switch it off and on: it boots as always, if it can.</li>";
        page += match facts.has_button {
            true => {
                "<li>Hold its button for ten seconds: everything on it is wiped at the next boot that works, and it is as new.</li>"
            }
            false => {
                "<li>Put its card into a computer, make a folder <code>altnet</code> on the drive that appears, and a file <code>reset</code> in it: \
                      everything on it is wiped at the next boot that works, and it is as new.</li>"
            }
        };
        page += "<li>Write its card anew with <code>altnet-provision flash</code>.</li></ul>";
    }
    page += &format!(
        "<h2>Details</h2><p>Board {}, release {}, slot {}.</p>",
        escaped(&facts.board),
        escaped(&facts.version),
        escaped(&facts.slot)
    );
    if facts.is_rescue && !state.lines.is_empty() {
        page += &format!("<pre>{}</pre>", escaped(&state.lines.join("\n")));
    }
    page + "</body></html>\n"
}

/// Text as it stands in HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(is_rescue: bool) -> Facts {
        Facts {
            board: "rpi".into(),
            version: "0.1.0".into(),
            slot: "B".into(),
            why: "slot B <has> no \"root\"".into(),
            is_rescue,
            has_button: false,
        }
    }

    #[test]
    fn a_page_says_why_and_takes_a_bundle_only_in_rescue() {
        let state = State {
            lines: vec!["[1.0] mmc0: error & timeout".into()],
            ..State::default()
        };
        let page = html(&facts(true), &state);
        assert!(
            page.contains("slot B &lt;has&gt; no &quot;root&quot;"),
            "{page}"
        );
        assert!(page.contains("error &amp; timeout") && page.contains("type=\"file\""));
        let page = html(&facts(false), &state);
        assert!(!page.contains("<form") && !page.contains("mmc0"), "{page}");
        assert_eq!(json(&facts(false), &state)["state"], "serving");
    }

    #[test]
    fn an_installation_is_shown_as_it_goes() {
        let state = State {
            progress: Some(Progress {
                step: Step::Writing,
                done_bytes: 12 << 20,
                of_bytes: 48 << 20,
            }),
            ..State::default()
        };
        assert!(html(&facts(true), &state).contains("25 % written"));
        let said = json(&facts(true), &state);
        assert_eq!(said["installing"]["done_bytes"], 12 << 20);
        assert_eq!(said["log"], json!([]));
    }
}

//! What the page says of passkeys. A browser without script doesn't see that there are any, but may
//! remove those that are there.

use data_encoding::BASE64;
use ring::digest;

use super::Html;

const SCRIPT: &str = include_str!("passkey.js");

/// What a browser can do with passkeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Log in with one.
    Use,
    /// Add one, or remove one of these.
    Add(Vec<Listed>),
    /// Neither: somebody is logged in on this device, but not by this browser.
    Elsewhere,
}

/// A passkey in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What it is called.
    pub name: String,
    /// What tells it from others.
    pub about: String,
}

/// As [`super::security_policy`], and this page's one script, which asks this page.
pub fn security_policy() -> String {
    let hash = digest::digest(&digest::SHA256, SCRIPT.as_bytes());
    let hash = BASE64.encode(hash.as_ref());
    let rest = super::security_policy();
    format!("{rest}; script-src 'sha256-{hash}'; connect-src 'self'")
}

/// Writes what is offered.
pub(super) fn offer(html: &mut Html, offer: &Offer, token: &str) {
    match offer {
        Offer::Use => button(html, "use", "Log in with a passkey", token),
        Offer::Elsewhere => {
            html.raw("<h2>Passkeys</h2><p>To add or remove one, log out and log in again with this browser, on this page.</p>");
        }
        Offer::Add(all) => {
            html.raw("<h2>Passkeys</h2>");
            for Listed { name, about } in all {
                html.form("/passkey/remove", token);
                html.raw("<input type=\"hidden\" name=\"passkey\" value=\"")
                    .text(name);
                html.raw("\"><p>").text(name).raw(": ").text(about);
                html.raw("</p><button>Remove it</button></form>");
            }
            button(html, "add", "Add a passkey", token);
        }
    }
}

/// A button that the script shows where it can be used.
fn button(html: &mut Html, what: &'static str, label: &'static str, token: &str) {
    html.raw("<div id=\"passkey\" hidden data-what=\"")
        .raw(what);
    html.raw("\" data-token=\"").text(token).raw("\"><button>");
    html.raw(label)
        .raw("</button><p class=\"bad\" role=\"alert\" hidden></p></div><script>");
    html.raw(SCRIPT).raw("</script>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_the_one_that_the_policy_allows() {
        let mut html = Html::default();
        offer(&mut html, &Offer::Use, "token");
        let script = html.0.split("<script>").nth(1).unwrap();
        let script = script.split("</script>").next().unwrap();
        assert_eq!(script, SCRIPT);
        // Nothing that would end it early, and nothing from elsewhere.
        assert!(!SCRIPT.contains("</") && !SCRIPT.contains("<!--") && !SCRIPT.contains("//"));
        let hash = digest::digest(&digest::SHA256, script.as_bytes());
        let hash = BASE64.encode(hash.as_ref());
        let policy = security_policy();
        assert!(policy.contains(&format!("; script-src 'sha256-{hash}'; connect-src 'self'")));
        assert!(policy.starts_with("default-src 'none'"));
    }
}

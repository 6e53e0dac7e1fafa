//! What works in a house, and what becomes of what worked before.

use crate::state::Working;

/// How a thing that a house needs is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It works.
    Works,
    /// It doesn't, and as far as can be told from here that is not this box's making: no carrier, no
    /// answer from the provider.
    Outside,
    /// It doesn't.
    Here,
}

/// What works, as it is found now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The way to the internet.
    pub wan: Finding,
    /// Names of the internet.
    pub dns: Finding,
    /// The private network.
    pub private: Finding,
    /// The house's side.
    pub lan: Finding,
}

impl Facts {
    /// What works.
    pub fn working(&self) -> Working {
        let works = |finding| finding == Finding::Works;
        Working {
            wan: works(self.wan),
            dns: works(self.dns),
            private: works(self.private),
            lan: works(self.lan),
        }
    }

    /// What becomes of what worked `before`.
    pub(super) fn judge(&self, before: Working) -> Finding {
        // Without the internet nobody can say whether names and peers would work.
        let beyond = |finding| match (self.wan, finding) {
            (Finding::Outside, Finding::Here) => Finding::Outside,
            (_, finding) => finding,
        };
        let wanted = [
            (before.wan, self.wan),
            (before.dns, beyond(self.dns)),
            (before.private, beyond(self.private)),
            (before.lan, self.lan),
        ];
        let found = wanted.into_iter().filter(|(was, _)| *was);
        let found: Vec<Finding> = found.map(|(_, finding)| finding).collect();
        if found.contains(&Finding::Here) {
            Finding::Here
        } else if found.contains(&Finding::Outside) {
            Finding::Outside
        } else {
            Finding::Works
        }
    }
}

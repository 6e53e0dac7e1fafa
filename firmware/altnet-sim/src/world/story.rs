//! How a host is, in words, for a test that fails.

use altnet_core::node::DropReason;

use super::{HostId, World};

impl World {
    /// Its status and peers, what it was told since this was asked before, and what it dropped.
    pub fn story(&mut self, host: HostId) -> String {
        if !self.is_on(host) {
            return "\nswitched off\n".into();
        }
        let now = self.now();
        let mut story = format!("\n{:?}\n", self.node(host).status(now));
        for peer in self.node(host).peer_views(now) {
            story += &format!("  {peer:?}\n");
        }
        for event in self.told(host) {
            story += &format!("  {event}\n");
        }
        for reason in DropReason::ALL {
            let count = self.node(host).counters().dropped(reason);
            if count > 0 {
                story += &format!("  dropped {reason}: {count}\n");
            }
        }
        story
    }
}

//! A box that doesn't serve, and a person who stands beside it.

use super::{Appliance, Error};
use crate::choice::{self, MAX_TRIES};

impl Appliance {
    /// The same box in rescue: a release that waits to be confirmed in the slot that runs is no obstacle to another one
    /// beside it, and doesn't wait any more once that is installed.
    #[must_use]
    pub fn in_rescue(mut self) -> Self {
        self.in_rescue = true;
        self
    }

    /// Gives the slot that runs its tries back: it came up. Whether it is the good one is for [`super::Watch`].
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Choice`] or [`Error::Busy`].
    pub fn came_up(&self) -> Result<(), Error> {
        let _lock = self.lock()?;
        let standing = choice::read(&mut self.whole_to_read()?, self.format)?;
        match standing.choice.tries(self.running) == MAX_TRIES {
            true => Ok(()),
            false => self.choose(|choice| choice.with_tries(self.running, MAX_TRIES)),
        }
    }
}

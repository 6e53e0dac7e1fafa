//! Reading a scenario out of bytes. Past the end everything is zero.

/// What is left of a scenario.
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next octet.
    pub fn octet(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// The next two octets.
    pub fn pair(&mut self) -> u16 {
        u16::from_be_bytes([self.octet(), self.octet()])
    }

    /// As many of the next octets as there are, `most` at most.
    pub fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A run of octets that says its length first.
    pub fn run(&mut self) -> &'a [u8] {
        let length = usize::from(self.pair());
        self.take(length)
    }

    /// One of `choices`, if there are any.
    pub fn choose<'c, T>(&mut self, choices: &'c [T]) -> Option<&'c T> {
        let at = usize::from(self.pair());
        choices.get(at % choices.len().max(1))
    }

    /// `bytes`, changed as the scenario says: nothing, some octets, its length.
    pub fn changed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut changed = bytes.to_vec();
        let how = self.octet();
        for _ in 0..how & 3 {
            let (at, with) = (usize::from(self.pair()), self.octet());
            let length = changed.len().max(1);
            if let Some(octet) = changed.get_mut(at % length) {
                *octet ^= with;
            }
        }
        if how & 4 != 0 {
            let to = usize::from(self.pair());
            changed.truncate(to % (changed.len() + 1));
        }
        if how & 8 != 0 {
            changed.extend_from_slice(self.run());
        }
        changed
    }
}

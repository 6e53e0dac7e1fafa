//! Replies are read back by `hickory-proto`, which also writes the questions.

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn files_are_nobody_elses_but_what_the_relays_group_may_read() {
    let home = tempfile::tempdir().unwrap();
    let own_group = User::own().group;
    for (group, folder, shared) in [(None, 0o700, 0o600), (Some(own_group), 0o2750, 0o640)] {
        let path = home.path().join("acme");
        let store = Store::open(&path, None, group).unwrap();
        store.save("account", &1).unwrap();
        store.publish(b"certificate").unwrap();
        let answer = store.answer("a.example", b"answer").unwrap();
        assert_eq!(mode(&path), folder);
        assert_eq!(mode(&path.join("account.state")), 0o600);
        assert_eq!(mode(&path.join("certificate.pem")), shared);
        assert_eq!(mode(&answer.0), shared);
        assert!(!path.join("next.new").exists());
        let there = answer.0.clone();
        drop(answer);
        assert!(!there.exists());
    }
}

#[test]
fn a_folder_that_was_named_by_mistake_stays_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("etc");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    for there in [
        "passwd",
        "other.pem",
        "other.state",
        "dpkg.lock",
        "rc.new",
        "x.challenge",
        "certificate.damaged",
    ] {
        fs::write(path.join(there), "root").unwrap();
        let said = Store::open(&path, None, None).unwrap_err().to_string();
        assert!(said.contains(there), "{said}");
        assert_eq!(mode(&path), 0o755);
        fs::remove_file(path.join(there)).unwrap();
    }
    // All that is altnet-acme's.
    for there in [
        "certificate.pem",
        "account.state",
        "account.damaged",
        "plan.state",
        "plan.damaged",
        "asking.lock",
        "next.new",
        "a.example.challenge",
    ] {
        fs::write(path.join(there), "").unwrap();
    }
    Store::open(&path, None, None).unwrap();
    assert_eq!(mode(&path), 0o700);
}

#[test]
fn the_folder_alone_is_closed_to_others() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("lib/acme");
    Store::open(&path, None, None).unwrap();
    assert_eq!(mode(&path), 0o700);
    // As whatever makes folders here makes them.
    fs::create_dir(home.path().join("other")).unwrap();
    let usual = mode(&home.path().join("other"));
    assert_eq!(mode(path.parent().unwrap()), usual);
    // A file in its place is no folder.
    fs::write(home.path().join("file"), "").unwrap();
    assert!(Store::open(&home.path().join("file"), None, None).is_err());
}

#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path(), None, None).unwrap();
    for name in ["plan.state", "certificate.pem", "asking.lock"] {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, home.path().join(name), kind, mode, 0).unwrap();
    }
    assert!(store.load::<u8>("plan").is_err());
    assert!(store.certificate().is_err());
    assert!(matches!(store.lock(), Err(StoreError::Io { .. })));
}

#[test]
fn a_damaged_state_is_set_aside_and_the_next_is_written_as_ever() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path(), None, None).unwrap();
    let path = home.path().join("plan.state");
    store.save("plan", &vec![1, 2, 3]).unwrap();
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(store.load::<Vec<u8>>("plan").unwrap(), None, "{at}");
        assert_eq!(fs::read(path.with_extension("damaged")).unwrap(), bytes);
        store.save("plan", &vec![4]).unwrap();
        assert_eq!(store.load("plan").unwrap(), Some(vec![4]));
    }
    // One kind isn't read as another.
    fs::rename(&path, home.path().join("account.state")).unwrap();
    assert_eq!(store.load::<Vec<u8>>("account").unwrap(), None);
}

#[test]
fn a_state_that_others_can_read_is_refused_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path(), None, None).unwrap();
    store.save("account", &1).unwrap();
    let path = home.path().join("account.state");
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let said = store.load::<u8>("account").unwrap_err().to_string();
    assert!(said.contains("account.state: remove the file"), "{said}");
}

#[test]
fn a_write_that_is_cut_short_anywhere_leaves_what_was_there() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path(), None, None).unwrap();
    store.save("plan", &"old").unwrap();
    store.publish(b"old").unwrap();
    // What the next write would have left if the power had gone after each byte of it.
    let next = record::encode("plan", b"\"new\"");
    for length in 0..=next.len() {
        fs::write(home.path().join("next.new"), &next[..length]).unwrap();
        let store = Store::open(home.path(), None, None).unwrap();
        assert_eq!(store.load::<String>("plan").unwrap().unwrap(), "old");
        assert_eq!(store.certificate().unwrap().unwrap().as_slice(), b"old");
    }
    store.save("plan", &"new").unwrap();
    assert_eq!(store.load::<String>("plan").unwrap().unwrap(), "new");
    // A write that the filesystem refuses says so and changes nothing.
    fs::create_dir(home.path().join("next.new")).unwrap();
    fs::write(home.path().join("next.new/in"), "the way").unwrap();
    assert!(store.save("plan", &"newer").is_err());
    assert!(store.publish(b"newer").is_err());
    assert_eq!(store.load::<String>("plan").unwrap().unwrap(), "new");
    assert_eq!(store.certificate().unwrap().unwrap().as_slice(), b"old");
}

#[test]
fn one_process_asks_at_a_time_and_clears_what_another_left() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path(), None, None).unwrap();
    let lock = store.lock().unwrap();
    assert!(matches!(store.lock(), Err(StoreError::InUse)));
    std::mem::forget(store.answer("a.example", b"left").unwrap());
    store.publish(b"kept").unwrap();
    store.clear_answers(&lock).unwrap();
    assert!(!home.path().join("a.example.challenge").exists());
    assert!(store.certificate().unwrap().is_some());
    drop(lock);
    assert!(store.lock().is_ok());
    assert!(matches!(
        store.answer("../a.b", b""),
        Err(StoreError::NoName(_))
    ));
}

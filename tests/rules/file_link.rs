//! Links to files: what is signed, and how long a link is good.

use coinslot::testing::rules::file_link::{object_key, FileLink};

const CHECKSUM: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

#[test]
fn a_link_leads_to_what_was_signed() {
    let key = object_key("run_1", 0, "haiku.txt");
    let link = FileLink { key: &key, expires: "1740672100", checksum: CHECKSUM };
    let path = link.path("MAC");
    assert_eq!(path, format!("/files/run_1/0/haiku.txt?expires=1740672100&sha256={CHECKSUM}&signature=MAC"));
    let (path, query) = path.split_once('?').unwrap();
    assert_eq!(FileLink::read(path.trim_start_matches("/files/"), query), Some((link, "MAC")));
}

#[test]
fn every_part_of_a_link_is_signed() {
    let link = FileLink { key: "run_1/0/a.txt", expires: "7", checksum: CHECKSUM };
    assert_eq!(link.signed_text(), format!("file\nrun_1/0/a.txt\n7\n{CHECKSUM}"));
    for other in [
        FileLink { key: "run_2/0/a.txt", ..link },
        FileLink { expires: "8", ..link },
        FileLink { expires: "07", ..link },
        FileLink { checksum: "00", ..link },
    ] {
        assert_ne!(other.signed_text(), link.signed_text(), "{other:?}");
    }
}

#[test]
fn a_query_without_one_of_its_parts_is_no_link() {
    let whole = format!("expires=7&sha256={CHECKSUM}&signature=MAC");
    assert!(FileLink::read("k", &whole).is_some());
    assert!(FileLink::read("k", "signature=MAC&other=1&sha256=00&expires=7").is_some(), "in any order");
    for query in
        ["", "expires=7", "expires=7&sha256=00", "expires=7&signature=MAC", "sha256=00&signature=MAC", "expires"]
    {
        assert_eq!(FileLink::read("k", query), None, "{query}");
    }
}

#[test]
fn a_link_is_good_before_its_time_and_not_at_it() {
    let good_at = |expires: &str, now| FileLink { key: "k", expires, checksum: CHECKSUM }.is_current(now);
    assert!(good_at("100", 99) && good_at("100", 0));
    assert!(!good_at("100", 100) && !good_at("100", 101));
    for expires in ["", "-1", "soon", "1e9", "18446744073709551616"] {
        assert!(!good_at(expires, 0), "{expires}");
    }
}

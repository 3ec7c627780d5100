//! The transcript: a position in, events out; checkpointed, restored, and begun anew.

use coinslot::testing::rules::record::transcript::Transcript;
use coinslot::testing::wire::sse::{self, Parser};
use proptest::prelude::*;
use serde_json::Value;

fn transcript(pieces: &[&str]) -> Transcript {
    let mut transcript = Transcript::default();
    pieces.iter().for_each(|piece| transcript.push(piece));
    transcript
}

/// The events from a position on, and the position after them. They are appended to what is there.
fn events(transcript: &Transcript, position: usize) -> (Vec<u8>, usize) {
    let mut out = b"before".to_vec();
    let next = transcript.write_events(position, &mut out);
    (out.strip_prefix(b"before").unwrap().to_vec(), next)
}

/// What a client reads of these bytes: the pieces, with the ids as they stand in the text.
fn read(bytes: &[u8]) -> Vec<(u64, String)> {
    let mut contents = Vec::new();
    let on_event = |event: sse::Event<'_>| {
        let json: Value = serde_json::from_str(event.data).unwrap();
        assert_eq!(json["type"], "text");
        contents.push(json["content"].as_str().unwrap().to_owned());
    };
    Parser::default().push(bytes, on_event).unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let ids = text.lines().filter_map(|line| line.strip_prefix("id: ")).map(|id| id.parse().unwrap());
    ids.zip(contents).collect()
}

/// Everything from a position on, in as many goes as it takes, and how many those were.
fn follow(transcript: &Transcript, mut position: usize) -> (Vec<(u64, String)>, usize) {
    let (mut all, mut goes) = (Vec::new(), 0);
    loop {
        let (bytes, next) = events(transcript, position);
        if next == position {
            assert!(bytes.is_empty());
            return (all, goes);
        }
        all.extend(read(&bytes));
        position = next;
        goes += 1;
    }
}

#[test]
fn the_position_is_the_number_of_pieces_and_becomes_the_id() {
    let transcript = transcript(&["Hel", "lo", "!"]);
    assert_eq!((transcript.len(), transcript.text()), (3, "Hello!"));
    let (bytes, next) = events(&transcript, 0);
    assert_eq!(next, 3);
    let expected = "id: 1\ndata: {\"type\":\"text\",\"content\":\"Hel\"}\n\n";
    assert!(String::from_utf8(bytes.clone()).unwrap().starts_with(expected));
    assert_eq!(read(&bytes), [(1, "Hel".to_owned()), (2, "lo".to_owned()), (3, "!".to_owned())]);
}

#[test]
fn from_a_position_on_there_is_only_what_comes_after_it() {
    let transcript = transcript(&["Grü", "ße", "🦀"]);
    assert_eq!(read(&events(&transcript, 1).0), [(2, "ße".to_owned()), (3, "🦀".to_owned())]);
    assert_eq!(read(&events(&transcript, 2).0), [(3, "🦀".to_owned())]);
}

#[test]
fn at_the_end_and_beyond_it_there_is_nothing() {
    let transcript = transcript(&["a", "b"]);
    for position in [2, 3, 100, usize::MAX] {
        assert_eq!(events(&transcript, position), (vec![], position));
    }
    assert_eq!(events(&Transcript::default(), 0), (vec![], 0));
}

#[test]
fn an_empty_piece_takes_no_position() {
    let transcript = transcript(&["", "a", "", "b", ""]);
    assert_eq!(transcript.len(), 2);
    assert!(!transcript.is_empty());
    assert!(self::transcript(&[""]).is_empty());
}

#[test]
fn text_of_any_kind_stays_one_event() {
    let piece = "line\nline\r\n\u{2028}\"quoted\" \\ {} \0 </script> data: x\n\nid: 9";
    let (events, _) = follow(&transcript(&[piece]), 0);
    assert_eq!(events, [(1, piece.to_owned())]);
}

#[test]
fn a_long_text_comes_in_goes_of_bounded_size() {
    let piece = "x".repeat(1000);
    let transcript = transcript(&vec![piece.as_str(); 1000]);
    let (bytes, next) = events(&transcript, 0);
    assert!((64 * 1024..66 * 1024).contains(&bytes.len()), "{}", bytes.len());
    assert_eq!(read(&bytes).len(), next);
    let (all, goes) = follow(&transcript, 0);
    assert_eq!((all.len(), all.last().unwrap().0), (1000, 1000));
    assert!((15..=17).contains(&goes), "{goes}");
}

#[test]
fn a_piece_larger_than_a_go_still_comes() {
    let huge = "x".repeat(1_000_000);
    let (all, goes) = follow(&transcript(&[&huge, "y"]), 0);
    assert_eq!((all[0].1.len(), all[1].1.as_str(), goes), (1_000_000, "y", 2));
}

#[test]
fn a_checkpoint_holds_what_no_earlier_one_held() {
    let mut transcript = transcript(&["a", "bc"]);
    assert_eq!(transcript.unsaved_bytes(), 3);
    assert_eq!(transcript.unsaved(), (0, vec!["a".to_owned(), "bc".to_owned()]));
    transcript.saved();
    assert_eq!((transcript.unsaved_bytes(), transcript.unsaved()), (0, (2, vec![])));
    transcript.push("dé");
    assert_eq!(transcript.unsaved_bytes(), 3);
    assert_eq!(transcript.unsaved(), (2, vec!["dé".to_owned()]));
    assert_eq!(transcript.text(), "abcdé");
}

/// The write of a checkpoint can fail.
#[test]
fn what_was_asked_for_and_not_saved_is_there_for_the_next_checkpoint() {
    let mut transcript = transcript(&["a"]);
    assert_eq!(transcript.unsaved(), transcript.unsaved());
    assert_eq!(transcript.unsaved_bytes(), 1);
    transcript.push("b");
    assert_eq!(transcript.unsaved(), (0, vec!["a".to_owned(), "b".to_owned()]));
    transcript.saved();
    assert_eq!((transcript.unsaved_bytes(), transcript.unsaved()), (0, (2, vec![])));
}

#[test]
fn what_is_restored_counts_as_saved_and_goes_on_at_its_position() {
    let mut restored = Transcript::restore(3, ["a".to_owned(), "b".to_owned()]);
    assert_eq!((restored.text(), restored.len(), restored.unsaved_bytes()), ("ab", 2, 0));
    restored.push("c");
    assert_eq!(restored.unsaved(), (2, vec!["c".to_owned()]));
    assert_eq!(read(&events(&restored, 1).0), [(2_000_002, "b".to_owned()), (2_000_003, "c".to_owned())]);
    restored.clear();
    assert_eq!(restored.edition, 4, "the edition is restored too");
}

#[test]
fn a_new_edition_starts_from_nothing_and_is_told_from_the_last() {
    let mut transcript = transcript(&["a", "b"]);
    transcript.saved();
    let first = transcript.edition;
    transcript.clear();
    assert_eq!((transcript.text(), transcript.len(), transcript.unsaved_bytes()), ("", 0, 0));
    assert_eq!(transcript.edition, first + 1);
    transcript.push("c");
    assert_eq!(transcript.unsaved(), (0, vec!["c".to_owned()]), "nothing of the last edition counts as saved");
    assert_eq!(read(&events(&transcript, 0).0), [(1_000_001, "c".to_owned())]);
    transcript.clear();
    assert_eq!(transcript.edition, first + 2);
    transcript.push("d");
    assert_eq!(read(&events(&transcript, 0).0), [(2_000_001, "d".to_owned())], "no id comes twice");
}

/// `Last-Event-ID`: a caller who has read another edition begins anew.
#[test]
fn an_event_id_says_how_far_a_caller_has_read_of_this_edition_and_of_no_other() {
    let of = |edition, pieces: &[&str]| Transcript::restore(edition, pieces.iter().map(|p| (*p).to_owned()));
    let first = of(1, &["a", "b"]);
    assert_eq!((0..5).map(|id| first.position_of(id)).collect::<Vec<_>>(), [Some(0), Some(1), Some(2), Some(3), None]);
    let second = of(2, &["c"]);
    assert_eq!((second.event_id(0), second.event_id(1)), (1_000_000, 1_000_001));
    for (id, position) in [(0, None), (2, None), (999_999, None), (1_000_000, Some(0)), (1_000_001, Some(1))] {
        assert_eq!(second.position_of(id), position, "{id}");
    }
    assert_eq!(second.position_of(1_000_002), Some(2), "the event that ends the answer");
    for beyond in [1_000_003, 2_000_000, u64::MAX] {
        assert_eq!((second.position_of(beyond), first.position_of(beyond)), (None, None), "{beyond}");
    }
    let last = of(u32::MAX, &["z"]);
    assert_eq!(last.position_of(last.event_id(1)), Some(1));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// Whoever joins wherever reads what was written, whatever was checkpointed in between.
    #[test]
    fn every_subscriber_reads_the_same_text_from_its_position(
        pieces in prop::collection::vec(any::<String>(), 0..20),
        saves in prop::collection::vec(any::<bool>(), 20),
        at in 0usize..25,
        edition in 0u32..5,
    ) {
        let mut transcript = Transcript::restore(edition, []);
        let mut stored = Vec::new();
        for (piece, save) in pieces.iter().zip(&saves) {
            transcript.push(piece);
            if *save {
                let (from, pieces) = transcript.unsaved();
                prop_assert_eq!(from, stored.len());
                stored.extend(pieces);
                transcript.saved();
            }
        }
        let (from, rest) = transcript.unsaved();
        prop_assert_eq!(from, stored.len());
        stored.extend(rest);
        let written: Vec<String> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        prop_assert_eq!(&stored, &written);
        let before = u64::from(edition.max(1) - 1) * 1_000_000;
        let expected: Vec<(u64, String)> = (before + 1..).zip(written.clone()).skip(at).collect();
        for (read, (id, _)) in (at + 1..).zip(&expected) {
            prop_assert_eq!(transcript.position_of(*id), Some(read), "who has read it goes on after it");
        }
        prop_assert_eq!(&follow(&transcript, at).0, &expected);
        let restored = Transcript::restore(edition, stored);
        prop_assert_eq!(restored.text(), written.concat());
        prop_assert_eq!(follow(&restored, at).0, expected);
    }
}

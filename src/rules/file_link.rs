//! Links to the files of a run. Each is signed by us, names the checksum of what it leads to, and expires.

/// The name of an item's file: in storage, and in the path of its link.
pub fn object_key(run_id: &str, number: usize, name: &str) -> String {
    format!("{run_id}/{number}/{name}")
}

/// A link without its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLink<'a> {
    pub key: &'a str,
    /// Unix seconds, as the link spells them.
    pub expires: &'a str,
    /// SHA-256 of the file, in hex.
    pub checksum: &'a str,
}

impl<'a> FileLink<'a> {
    /// Reads the path and the query of a link: the link, and its signature, which is not checked here.
    pub fn read(key: &'a str, query: &'a str) -> Option<(Self, &'a str)> {
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let link = Self { key, expires: value("expires")?, checksum: value("sha256")? };
        Some((link, value("signature")?))
    }

    /// The message that the signature is made over.
    pub fn signed_text(&self) -> String {
        let Self { key, expires, checksum } = self;
        format!("file\n{key}\n{expires}\n{checksum}")
    }

    /// The path and query of the link.
    pub fn path(&self, signature: &str) -> String {
        let Self { key, expires, checksum } = self;
        format!("/files/{key}?expires={expires}&sha256={checksum}&signature={signature}")
    }

    /// Whether the link may still be followed at `now` (Unix seconds).
    pub fn is_current(&self, now: u64) -> bool {
        self.expires.parse::<u64>().is_ok_and(|expires| now < expires)
    }
}

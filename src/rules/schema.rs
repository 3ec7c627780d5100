//! stub until merged
use serde_json::Value;
/// A
pub struct Schema;
/// B
pub struct Unsupported {
    /// a
    pub field: String,
    /// b
    pub why: String,
}
/// C
pub struct Mismatch {
    /// a
    pub field: String,
    /// b
    pub expected: String,
    /// c
    pub keyword: &'static str,
}
impl Schema {
    /// d
    pub fn read(_: &Value) -> Result<Schema, Unsupported> {
        Ok(Schema)
    }
    /// e
    pub fn check(&self, _: &Value) -> Result<(), Mismatch> {
        Ok(())
    }
}

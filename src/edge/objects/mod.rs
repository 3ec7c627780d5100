//! The Durable Objects' protocols (how they are called, and how they read a call), and a wallet object's storage.

pub(crate) mod ledgers;
pub(crate) mod wallet_store;
pub(crate) mod wallets;

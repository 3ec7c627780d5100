//! Whether a payer's address has code, as a node of the chain says. A contract wallet signs in its own way (EIP-1271), and
//! its signature can be as long as a key's.
//!
//! A stranger can name any address, so the answers are kept, and few look-ups are made at a time.

use crate::edge::clock;
use crate::edge::http::chain::{call, is_node_of};
use crate::rules::config::Network;
use crate::rules::payment::account_code::AccountCodes;
use crate::rules::run::Millis;
use crate::wire::evm::Address;
use crate::wire::evm_rpc;
use std::cell::RefCell;

thread_local! {
    static CODES: RefCell<AccountCodes> = RefCell::new(AccountCodes::default());
}

/// Counts one look-up for as long as it is held.
struct LookUp(Millis);

impl LookUp {
    fn begin() -> Option<Self> {
        let now = clock::now();
        CODES.with_borrow_mut(|codes| codes.begin_look_up(now)).then_some(Self(now))
    }
}

impl Drop for LookUp {
    fn drop(&mut self) {
        CODES.with_borrow_mut(|codes| codes.end_look_up(self.0));
    }
}

/// Whether the address has code on the network. `None`: no node is configured, it gives no usable answer, or too many
/// look-ups are under way.
pub(crate) async fn has_code(network: Option<&Network>, address: Address) -> Option<bool> {
    let network = network?;
    let url = network.rpc_url.as_deref()?;
    let known = CODES.with_borrow(|codes| codes.get(&network.id, address, clock::now()));
    if known.is_some() {
        return known;
    }
    let _look_up = LookUp::begin()?;
    let code = async {
        // A node of another chain would say of every wallet that it has no code.
        is_node_of(url, network).await?;
        call::<String>(url, &evm_rpc::code_of(address)).await
    };
    let has_code = code.await.and_then(|code| evm_rpc::read_has_code(&code));
    match has_code {
        Some(has_code) => {
            CODES.with_borrow_mut(|codes| codes.put(&network.id, address, has_code, clock::now()));
        }
        None => worker::console_error!("chain: the node of {} does not say whether an address has code", network.id),
    }
    has_code
}

//! Messages between the ledgers of two nodes.

use std::time::Duration;

use gvpn_payment::{PaymentMessage, Transmit};

use super::Payments;
use crate::{ErrorKind, NodeError, peers::Call, proto};

/// The longest pause between two attempts to deliver a document.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

impl Payments {
    pub(super) fn send(&self, transmit: Transmit) {
        let this = self.clone();
        let inner = &self.inner;
        inner.courier.send(&inner.core, transmit.to, transmit, move |transmit| {
            let this = this.clone();
            async move { this.deliver(transmit).await }
        });
    }

    pub(super) fn serve(&self) {
        let mut calls = self.inner.core.peers.serve(proto::PAYMENT);
        let this = self.clone();
        self.inner.core.spawn(async move {
            while let Some(call) = calls.recv().await {
                let handler = this.clone();
                this.inner.core.spawn(async move { handler.answer(call).await });
            }
        });
    }

    /// Documents are delivered however long it takes: what was not before this node ends is sent
    /// again after its next start.
    async fn deliver(&self, transmit: Transmit) {
        let mut pause = Duration::from_millis(500);
        loop {
            let Transmit { to, message } = &transmit;
            let told: Result<(), NodeError> =
                self.inner.core.peers.request(*to, proto::PAYMENT, message).await;
            match told {
                Err(error) if matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Timeout) => {
                    tracing::debug!(%to, %error, "a payment document was not delivered yet");
                }
                Err(error) => {
                    tracing::warn!(%to, %error, "a payment document was not taken");
                    return;
                }
                Ok(()) => return self.act(|ledger, _| ledger.delivered(message)),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn answer(&self, mut call: Call) {
        let Some(message) = call.request::<PaymentMessage>().await else { return };
        let from = call.peer;
        let contract = message.agreement().and_then(|id| self.contract(id));
        self.act(|ledger, now| ledger.handle_message(now, from, message, contract.as_ref()));
        call.answer(Ok(())).await;
    }
}

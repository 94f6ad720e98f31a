//! Messages to the markets of other nodes, in order.

use std::time::{Duration, Instant};

use gvpn_market::{MarketMessage, Transmit};
use gvpn_model::NodeId;

use super::Markets;
use crate::{NodeError, peers::Call, proto};

/// A bargain that has waited for so long is not tried again: there are other providers.
const HASTE: Duration = Duration::from_secs(5);

impl Markets {
    pub(super) fn send(&self, transmit: Transmit) {
        let this = self.clone();
        let inner = &self.inner;
        inner.courier.send(&inner.core, transmit.to, transmit, move |transmit| {
            let this = this.clone();
            async move { this.deliver(transmit.to, transmit).await }
        });
    }

    pub(super) fn serve(&self) {
        let mut calls = self.inner.core.peers.serve(proto::MARKET);
        let this = self.clone();
        self.inner.core.spawn(async move {
            while let Some(call) = calls.recv().await {
                let handler = this.clone();
                this.inner.core.spawn(async move { handler.answer(call).await });
            }
        });
    }

    async fn deliver(&self, to: NodeId, transmit: Transmit) {
        let mut pause = Duration::from_millis(500);
        let began = Instant::now();
        for attempt in 1.. {
            let told: Result<(), NodeError> =
                self.inner.core.peers.request(to, proto::MARKET, &transmit.message).await;
            let Err(error) = told else { return };
            tracing::debug!(%to, %error, attempt, "a message of the market was not delivered");
            let late = is_bargain(&transmit.message) && began.elapsed() > HASTE;
            if late || attempt >= attempts(&transmit.message) {
                self.act(|market, now| market.delivery_failed(now, transmit, &error.message));
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(30));
        }
    }

    async fn answer(&self, mut call: Call) {
        let Some(message) = call.request::<MarketMessage>().await else { return };
        let from = call.peer;
        if let MarketMessage::ApproveAgreement { agreement, .. } = &message {
            self.bind(from, *agreement).await;
        }
        self.act(|market, now| market.handle_message(now, from, message));
        call.answer(Ok(())).await;
    }
}

fn is_bargain(message: &MarketMessage) -> bool {
    matches!(message, MarketMessage::Propose(_) | MarketMessage::ProposeAgreement { .. })
}

/// How often a message is tried. A bargain that does not reach the other side is off at once; the
/// end of an agreement is told with patience.
fn attempts(message: &MarketMessage) -> u32 {
    match message {
        MarketMessage::Propose(_) | MarketMessage::ProposeAgreement { .. } => 2,
        MarketMessage::ApproveAgreement { .. } => 3,
        MarketMessage::RejectProposal { .. }
        | MarketMessage::RejectAgreement { .. }
        | MarketMessage::CancelAgreement { .. } => 3,
        MarketMessage::TerminateAgreement { .. } => 10,
    }
}

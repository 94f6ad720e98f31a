//! Waiting for a change to be in force everywhere.

use std::time::Duration;

use axum::http::StatusCode;
use gvpn_model::NetworkId;
use serde::Deserialize;

use crate::{ApiError, ApiResult, ApiState};

/// The longest wait that may be asked for, in seconds.
const MOST: f64 = 300.0;

/// `?wait=SECONDS`: answer when every member's node follows the change, or after that long with
/// 504; the change is made in either case.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Wait {
    wait: Option<f64>,
}

impl Wait {
    /// Waits, if that was asked for.
    pub(crate) async fn settle(&self, state: &ApiState, id: NetworkId) -> ApiResult<()> {
        let Some(seconds) = self.wait else { return Ok(()) };
        if !(0.0..=MOST).contains(&seconds) {
            return Err(ApiError::bad_request(format!("wait must be 0 to {MOST} s")));
        }
        if state.node.networks().settled(id, Duration::from_secs_f64(seconds)).await? {
            return Ok(());
        }
        Err(ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            "the change is made, but not every member's node follows it yet: see `progress`",
        ))
    }
}

use chrono::TimeDelta;

use super::*;
use crate::*;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
}

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 20])
}

/// A driver that pays anything, when told.
struct Slow;

impl Driver for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn due(&self, cost: Amount) -> Amount {
        cost
    }

    fn pay(&mut self, _: &PaymentOrder) -> Result<Progress, DriverError> {
        Ok(Progress::Later)
    }
}

fn ledger(n: u8, driver: Box<dyn Driver>) -> Ledger {
    let mut count = 0;
    Ledger::new(node(n), driver, move || {
        count += 1;
        let mut id = [n; 16];
        id[0] = count;
        id
    })
}

fn contract() -> Contract {
    Contract {
        agreement_id: "a".into(),
        requestor: node(1),
        provider: node(2),
        platform: DEFAULT_PLATFORM.into(),
        payer_addr: "payer".into(),
        payee_addr: "payee".into(),
        session: Some("s".into()),
    }
}

struct World {
    requestor: Ledger,
    provider: Ledger,
}

impl World {
    fn new() -> Self {
        Self { requestor: ledger(1, Box::new(ZeroMoney)), provider: ledger(2, Box::new(ZeroMoney)) }
    }

    fn slow() -> Self {
        Self { requestor: ledger(1, Box::new(Slow)), provider: ledger(2, Box::new(Slow)) }
    }

    fn deliver(&mut self) {
        loop {
            let (from, to, transmit) = if let Some(t) = self.provider.poll_transmit() {
                (&mut self.provider, &mut self.requestor, t)
            } else if let Some(t) = self.requestor.poll_transmit() {
                (&mut self.requestor, &mut self.provider, t)
            } else {
                return;
            };
            assert_eq!(transmit.to, to.me);
            from.delivered(&transmit.message);
            // Everything arrives twice.
            for _ in 0..2 {
                to.handle_message(at(1), from.me, transmit.message.clone(), Some(&contract()));
            }
        }
    }

    fn invoice(&mut self, amount: &str) -> String {
        let new = NewInvoice {
            agreement_id: "a".into(),
            activity_ids: Some(vec!["x".into()]),
            amount: amount.parse().unwrap(),
            payment_due_date: at(60),
        };
        let id = self.provider.write_invoice(at(0), &contract(), new).unwrap().invoice_id;
        self.provider.send(Kind::Invoice, &id).unwrap();
        self.deliver();
        id
    }

    fn debit_note(&mut self, amount: &str, now: i64) -> String {
        let new = NewDebitNote {
            activity_id: "x".into(),
            total_amount_due: amount.parse().unwrap(),
            usage_counter_vector: Some(serde_json::json!([1.0, 2.0])),
            payment_due_date: None,
        };
        let note = self.provider.write_debit_note(at(now), &contract(), new).unwrap();
        self.provider.send(Kind::DebitNote, &note.debit_note_id).unwrap();
        self.deliver();
        note.debit_note_id
    }

    fn allocate(&mut self, amount: &str) -> String {
        let new = serde_json::from_value(serde_json::json!({
            "allocationId": "", "address": "payer", "paymentPlatform": DEFAULT_PLATFORM,
            "totalAmount": amount, "spentAmount": "", "remainingAmount": "",
            "timestamp": "2026-11-23T03:31:41.252581+00:00", "makeDeposit": false,
        }));
        self.requestor.allocate(at(0), new.unwrap()).unwrap().allocation_id
    }

    fn accept(
        &mut self,
        kind: Kind,
        id: &str,
        amount: &str,
        from: &str,
    ) -> Result<(), PaymentError> {
        let acceptance = Acceptance {
            total_amount_accepted: amount.parse().unwrap(),
            allocation_id: from.into(),
        };
        let result = self.requestor.accept(at(2), kind, id, &acceptance);
        self.deliver();
        result
    }

    fn status(&self, kind: Kind, id: &str) -> [DocumentStatus; 2] {
        [&self.requestor, &self.provider].map(|l| l.document(kind, id).unwrap().status())
    }
}

fn events(ledger: &Ledger, kind: Kind, filter: EventFilter) -> Vec<String> {
    let filter = EventFilter { max: 100, ..filter };
    match ledger.events(at(9), kind, &filter, at(9)) {
        LongPoll::Answer(events) => events
            .iter()
            .map(|e| serde_json::to_value(e).unwrap()["eventType"].to_string())
            .collect(),
        LongPoll::Wait(_) => unreachable!("no time to wait"),
    }
}

#[test]
fn a_zero_invoice_is_received_accepted_and_settled_at_once() {
    let mut world = World::new();
    let id = world.invoice("0");
    assert_eq!(world.status(Kind::Invoice, &id), [DocumentStatus::Received; 2]);
    let allocation = world.allocate("1");
    world.accept(Kind::Invoice, &id, "0", &allocation).unwrap();
    world.accept(Kind::Invoice, &id, "0", &allocation).expect("again is the same");
    assert_eq!(world.status(Kind::Invoice, &id), [DocumentStatus::Settled; 2]);
    let all = EventFilter::default;
    assert_eq!(events(&world.requestor, Kind::Invoice, all()), ["\"InvoiceReceivedEvent\""]);
    assert_eq!(
        events(&world.provider, Kind::Invoice, all()),
        ["\"InvoiceAcceptedEvent\"", "\"InvoiceSettledEvent\""]
    );
    for ledger in [&world.requestor, &world.provider] {
        let payments = ledger.payments_for(Kind::Invoice, &id).unwrap();
        assert_eq!(payments.len(), 1);
        assert!(payments[0].amount.is_zero());
        assert_eq!(ledger.payment(&payments[0].payment_id).unwrap(), payments[0]);
    }
}

#[test]
fn clients_may_choose_events_by_type_and_session() {
    let mut world = World::new();
    let id = world.invoice("0");
    let allocation = world.allocate("1");
    world.accept(Kind::Invoice, &id, "0", &allocation).unwrap();
    let payer = Some(vec!["InvoiceSettledEvent".to_owned()]);
    let filter = EventFilter { payer, ..Default::default() };
    assert_eq!(events(&world.requestor, Kind::Invoice, filter), ["\"InvoiceSettledEvent\""]);
    let count = |session: &str| {
        let filter = EventFilter { session: Some(session.into()), ..Default::default() };
        events(&world.requestor, Kind::Invoice, filter).len()
    };
    assert_eq!((count("s"), count("t")), (1, 0));
    assert!(events(&world.requestor, Kind::DebitNote, EventFilter::default()).is_empty());
}

#[test]
fn an_agreement_has_one_invoice() {
    let mut world = World::new();
    let id = world.invoice("0");
    let new = |world: &mut World| {
        let new = NewInvoice {
            agreement_id: "a".into(),
            activity_ids: None,
            amount: Amount::ZERO,
            payment_due_date: at(0),
        };
        world.provider.write_invoice(at(0), &contract(), new)
    };
    assert!(matches!(new(&mut world), Err(PaymentError::Conflict(_))));
    world.provider.cancel(at(3), Kind::Invoice, &id).unwrap();
    world.deliver();
    assert_eq!(world.status(Kind::Invoice, &id), [DocumentStatus::Cancelled; 2]);
    new(&mut world).expect("the first was taken back");
    let allocation = world.allocate("1");
    let late = world.accept(Kind::Invoice, &id, "0", &allocation);
    assert!(matches!(late, Err(PaymentError::Conflict(_))));
}

#[test]
fn amounts_and_allocations_are_checked() {
    let mut world = World::new();
    let id = world.invoice("0.5");
    let allocation = world.allocate("1");
    let no_money = world.accept(Kind::Invoice, &id, "0.5", &allocation).unwrap_err();
    assert!(no_money.to_string().contains("moves no money"), "{no_money}");
    assert_eq!(world.status(Kind::Invoice, &id), [DocumentStatus::Received; 2]);

    let mut world = World::slow();
    let id = world.invoice("0.5");
    let (small, large) = (world.allocate("0.4"), world.allocate("2"));
    for (amount, allocation) in [("0.4", &large), ("0.5", &small), ("0.5", &"none".to_owned())] {
        assert!(world.accept(Kind::Invoice, &id, amount, allocation).is_err());
    }
    world.accept(Kind::Invoice, &id, "0.5", &large).unwrap();
    assert_eq!(world.status(Kind::Invoice, &id), [DocumentStatus::Accepted; 2]);
    let after = world.requestor.allocation(at(2), &large).unwrap();
    assert_eq!(
        (after.spent_amount.to_string(), after.remaining_amount.to_string()),
        ("0.5".into(), "1.5".into())
    );
    world
        .requestor
        .paid(at(3), Kind::Invoice, &id, "0.5".parse().unwrap(), "proof".into())
        .unwrap();
    world.deliver();
    assert_eq!(world.status(Kind::Invoice, &id), [DocumentStatus::Settled; 2]);
}

#[test]
fn notes_add_up_and_the_invoice_contains_them() {
    let mut world = World::slow();
    let allocation = world.allocate("10");
    let left = |world: &mut World| {
        world.requestor.allocation(at(2), &allocation).unwrap().remaining_amount.to_string()
    };
    for (now, amount, want) in [(0, "1", "9"), (1, "3", "7")] {
        let note = world.debit_note(amount, now);
        world.accept(Kind::DebitNote, &note, amount, &allocation).unwrap();
        assert_eq!(left(&mut world), want);
    }
    let notes = world.provider.documents(Kind::DebitNote, None, 9);
    let Document::DebitNote(second) = &notes[1] else { panic!() };
    assert_eq!(second.previous_debit_note_id.as_deref(), Some(notes[0].id()));
    let invoice = world.invoice("4");
    world.accept(Kind::Invoice, &invoice, "4", &allocation).unwrap();
    assert_eq!(left(&mut world), "6", "4 in all");
}

#[test]
fn rejection_reaches_the_provider() {
    let mut world = World::new();
    let id = world.debit_note("0", 0);
    let rejection = Rejection {
        rejection_reason: RejectionReason::BadService,
        total_amount_accepted: Amount::ZERO,
        message: Some("no".into()),
    };
    world.requestor.reject(at(1), Kind::DebitNote, &id, rejection).unwrap();
    world.deliver();
    assert_eq!(world.status(Kind::DebitNote, &id), [DocumentStatus::Rejected; 2]);
    assert_eq!(
        events(&world.provider, Kind::DebitNote, EventFilter::default()),
        ["\"DebitNoteRejectedEvent\""]
    );
    assert!(
        world
            .provider
            .accept(
                at(1),
                Kind::DebitNote,
                &id,
                &Acceptance { total_amount_accepted: Amount::ZERO, allocation_id: String::new() }
            )
            .is_err(),
        "only the payer accepts"
    );
}

#[test]
fn documents_out_of_nowhere_are_turned_down() {
    let mut world = World::new();
    world.invoice("0");
    let document = world.provider.documents(Kind::Invoice, None, 1).remove(0);
    let mut other = ledger(1, Box::new(ZeroMoney));
    let send = PaymentMessage::Send(document);
    other.handle_message(at(0), node(9), send.clone(), Some(&contract()));
    assert_eq!(other.poll_transmit(), None, "not even its issuer");
    other.handle_message(at(0), node(2), send, None);
    assert!(matches!(
        other.poll_transmit(),
        Some(Transmit { message: PaymentMessage::Reject { .. }, .. })
    ));
    assert!(other.documents(Kind::Invoice, None, 9).is_empty());
}

#[test]
fn a_stranger_cannot_accept_or_cancel() {
    let mut world = World::new();
    let id = world.invoice("0");
    for message in [
        PaymentMessage::Accept { kind: Kind::Invoice, id: id.clone(), amount: Amount::ZERO },
        PaymentMessage::Cancel { kind: Kind::Invoice, id: id.clone() },
    ] {
        world.provider.handle_message(at(1), node(9), message.clone(), None);
        world.requestor.handle_message(at(1), node(9), message, None);
    }
    assert_eq!(world.status(Kind::Invoice, &id), [DocumentStatus::Received; 2]);
}

#[test]
fn allocations_end_are_amended_and_released() {
    let mut world = World::new();
    let id = world.allocate("1");
    let update = |json: &str| serde_json::from_str::<AllocationUpdate>(json).unwrap();
    let amended = world
        .requestor
        .amend_allocation(
            at(0),
            &id,
            update(r#"{"totalAmount": "2", "timeout": "2033-01-01T00:00:00Z"}"#),
        )
        .unwrap();
    assert_eq!(amended.remaining_amount.to_string(), "2");
    let past = update(r#"{"timeout": "2020-01-01T00:00:00Z"}"#);
    assert!(world.requestor.amend_allocation(at(0), &id, past).is_err());
    assert_eq!(world.requestor.allocations(at(0), None, 9).len(), 1);
    assert!(world.requestor.allocation(at(0) + TimeDelta::days(9999), &id).is_err());
    let id = world.allocate("1");
    world.requestor.release_allocation(at(0), &id).unwrap();
    assert!(world.requestor.release_allocation(at(0), &id).is_err());
}

#[test]
fn decorations_name_every_platform_once() {
    let mut world = World::new();
    let (a, b) = (world.allocate("1"), world.allocate("1"));
    let one = world.requestor.demand_decorations(at(0), &[&a, &b]).unwrap();
    assert_eq!(
        one.constraints,
        [
            "(golem.com.payment.platform.erc20-holesky-tglm.address=*)",
            "(golem.com.payment.protocol.version>1)"
        ]
    );
    let new = r#"{"totalAmount": "1", "paymentPlatform": {"network": "hoodi"}}"#;
    let other = world.requestor.allocate(at(0), serde_json::from_str(new).unwrap()).unwrap();
    assert_eq!(other.address, node(1).to_string());
    let two = world.requestor.demand_decorations(at(0), &[&a, &other.allocation_id]).unwrap();
    assert!(two.constraints[0].starts_with("(|("), "{two:?}");
    assert!(world.requestor.demand_decorations(at(0), &["none"]).is_err());
}

#[test]
fn a_restart_keeps_everything_and_sends_again_what_was_not_acknowledged() {
    let mut world = World::new();
    let id = world.invoice("0");
    let allocation = world.allocate("1");
    world.accept(Kind::Invoice, &id, "0", &allocation).unwrap();
    let unsent = world.provider.write_debit_note(
        at(5),
        &contract(),
        NewDebitNote {
            activity_id: "x".into(),
            total_amount_due: Amount::ZERO,
            usage_counter_vector: None,
            payment_due_date: None,
        },
    );
    let unsent = unsent.unwrap().debit_note_id;
    world.provider.send(Kind::DebitNote, &unsent).unwrap();
    for ledger in [&mut world.requestor, &mut world.provider] {
        let records: BTreeMap<_, _> = std::iter::from_fn(|| ledger.poll_record())
            .map(|r| (r.key(), serde_json::to_string(&r).unwrap()))
            .collect();
        let mut new = super::Ledger::new(ledger.me, Box::new(ZeroMoney), || [9; 16]);
        new.restore(records.values().map(|r| serde_json::from_str(r).unwrap()));
        for kind in [Kind::DebitNote, Kind::Invoice] {
            assert_eq!(new.documents(kind, None, 99), ledger.documents(kind, None, 99));
            let all = EventFilter::default;
            assert_eq!(events(&new, kind, all()), events(ledger, kind, all()));
        }
        assert_eq!(new.allocations(at(0), None, 9), ledger.allocations(at(0), None, 9));
        *ledger = new;
    }
    world.deliver();
    assert_eq!(world.status(Kind::DebitNote, &unsent), [DocumentStatus::Received; 2]);
}

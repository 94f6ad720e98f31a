use proptest::prelude::*;
use serde_json::json;

use super::*;

fn offer() -> Properties {
    Properties::from_json(&json!({
        "golem.inf.mem.gib": 4.0, "golem.inf.cpu.cores": 4, "golem.runtime.name": "vm",
        "golem.runtime.capabilities": ["inet", "vpn"], "golem.runtime.version": "0.10.3",
        "golem.com.payment.protocol.version": "3", "golem.srv.caps.multi-activity": true,
        "golem.node.id.name": "star * (1)", "built": "2024-05-01T10:00:00Z",
        "golem.com.pricing.model.linear.coeffs": [0.1, 5e-5, 0], "big": 9007199254740993_u64,
    }))
    .unwrap()
}

#[test]
fn truth_of_single_clauses() {
    for (text, want) in [
        ("", true),
        ("()", true),
        ("(&)", true),
        ("(|)", false),
        (" ( golem.runtime.name = vm ) ", true),
        ("((golem.runtime.name=vm))", true),
        ("(golem.runtime.name=VM)", false),
        ("(golem.runtime.name=\"vm\")", true),
        ("(golem.runtime.name!=vm)", false),
        ("(golem.runtime.name!=wasm)", true),
        ("(golem.runtime.name=v*)", true),
        ("(golem.runtime.name=*)", true),
        ("(golem.absent=*)", false),
        ("(golem.absent!=*)", true),
        ("(!(golem.absent=*))", true),
        ("(!(golem.absent=1))", false),
        ("(golem.inf.mem.gib>=0.5)", true),
        ("(golem.inf.mem.gib>=4)", true),
        ("(golem.inf.mem.gib>4)", false),
        ("(golem.inf.mem.gib<=4.00)", true),
        ("(golem.inf.mem.gib=4)", true),
        ("(golem.inf.mem.gib>=lots)", false),
        ("(golem.runtime.name<\\3dvm)", false),
        ("(big>9007199254740992)", true),
        ("(big=9007199254740992)", false),
        ("(golem.runtime.capabilities=vpn)", true),
        ("(golem.runtime.capabilities=gpu)", false),
        ("(golem.runtime.capabilities=v*)", true),
        ("(golem.runtime.capabilities=[inet, \"vpn\"])", true),
        ("(golem.runtime.capabilities=[vpn])", false),
        ("(golem.com.pricing.model.linear.coeffs=0.1)", true),
        ("(golem.com.payment.protocol.version>1)", true),
        ("(golem.com.payment.protocol.version>10)", false),
        ("(golem.runtime.version@v>=0.9)", true),
        ("(golem.runtime.version@v<0.10.12)", true),
        ("(golem.srv.caps.multi-activity=TRUE)", true),
        ("(golem.srv.caps.multi-activity=false)", false),
        ("(built>2024-01-01)", true),
        ("(built@d<2024-05-01T12:00:00+02:00)", false),
        ("(built@d=2024-05-01T12:00:00+02:00)", true),
        ("(golem.node.id.name=star \\2a \\28*\\29)", true),
        ("(golem.node.id.name=star \\* \\(1\\))", true),
        (
            "(&(golem.runtime.name=vm)\n\t(|(golem.inf.cpu.cores>=64)\n(golem.runtime.capabilities=vpn)))",
            true,
        ),
        ("(|(golem.absent=1)(golem.runtime.name=vm))", true),
        ("(&(golem.absent=1)(golem.runtime.name=vm))", false),
    ] {
        let constraint = Constraint::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(constraint.is_met_by(&offer()), want, "{text}");
    }
}

#[test]
fn errors_name_the_place() {
    for (text, at) in [
        ("golem.runtime.name=vm", 0),
        ("(golem.runtime.name=vm", 22),
        ("(a=1)(b=2)", 5),
        ("(&(a=1)(b))", 9),
        ("(&(a=1) b=2)", 8),
        ("(=1)", 1),
        ("(a b=1)", 1),
        ("(a=(1))", 3),
        ("(a=\\)", 5),
        ("(a=\\ff)", 6),
        ("(a~=1)", 2),
    ] {
        let error = Constraint::parse(text).expect_err(text);
        assert_eq!(error.at, at, "{text}: {error}");
    }
    assert!(Constraint::parse(&"(".repeat(100_000)).is_err());
    assert!(Constraint::parse(&"(!".repeat(5_000)).is_err());
}

#[test]
fn exclusions_name_every_clause_that_fails() {
    let constraint = Constraint::parse(
        "(&(golem.inf.mem.gib>=64)(golem.runtime.name=vm)(golem.inf.gpu=*)(|(golem.runtime.name=a)(golem.runtime.name=b)))",
    )
    .unwrap();
    let texts: Vec<_> = constraint.exclusions(&offer()).iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "(golem.inf.mem.gib>=64) (it is 4.0)",
            "(golem.inf.gpu=*) (no such property)",
            "(|(golem.runtime.name=a)(golem.runtime.name=b)) (it is golem.runtime.name: \"vm\")",
        ]
    );
}

fn any_constraint() -> impl Strategy<Value = Constraint> {
    let name = "[a-z][a-z0-9.?-]{0,12}";
    let operator = prop_oneof![
        Just(Operator::Equal),
        Just(Operator::NotEqual),
        Just(Operator::Less),
        Just(Operator::LessOrEqual),
        Just(Operator::Greater),
        Just(Operator::GreaterOrEqual)
    ];
    let kind = prop_oneof![Just(Kind::Natural), Just(Kind::Date), Just(Kind::Version)];
    let literal = proptest::collection::vec(any::<String>(), 1..4)
        .prop_filter("a lone wildcard is a presence", |p| p.iter().any(|p| !p.is_empty()))
        .prop_map(Literal::from_pieces);
    let leaf = prop_oneof![
        name.prop_map(Constraint::Present),
        (name, kind, operator, literal).prop_map(|(property, kind, operator, literal)| {
            Constraint::Compare { property, kind, operator, literal }
        }),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Constraint::And),
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Constraint::Or),
            inner.prop_map(|c| Constraint::Not(Box::new(c))),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_parses_or_fails_in_good_order(text in "[()&|!=<>*\\\\\\[\\]@a-z0-9.\" \n]{0,60}") {
        if let Ok(constraint) = Constraint::parse(&text) {
            let _ = constraint.exclusions(&offer());
            prop_assert_eq!(Constraint::parse(&constraint.to_string()), Ok(constraint));
        }
    }

    #[test]
    fn rubbish_never_panics(text in any::<String>()) {
        let _ = Constraint::parse(&text);
    }

    #[test]
    fn what_is_written_is_read_back(constraint in any_constraint()) {
        prop_assert_eq!(Constraint::parse(&constraint.to_string()), Ok(constraint));
    }

    #[test]
    fn exclusions_are_given_exactly_when_not_met(constraint in any_constraint()) {
        let offer = offer();
        prop_assert_eq!(constraint.is_met_by(&offer), constraint.exclusions(&offer).is_empty() );
    }
}

//! Addresses, routing rules and routes that somebody removed.

use super::*;

#[test]
fn addresses_of_the_proxy_that_were_removed_are_put_back() {
    inside(|| async {
        let enforcer = guarded().await;
        let listens = |address: &str| {
            let text = run("ip", &["-o", "addr", "show", "dev", "lo"], "").unwrap();
            text.contains(address)
        };
        for (removal, address) in [
            (&["addr", "del", "169.254.53.53/32", "dev", "lo"][..], "169.254.53.53"),
            (
                &["addr", "del", "fd6e:6de7:53a4::53/128", "dev", "lo"],
                "fd6e:6de7:53a4::53",
            ),
            (&["addr", "flush", "dev", "lo"], "169.254.53.53"),
            (&["link", "set", "lo", "down"], "fd6e:6de7:53a4::53"),
        ] {
            assert!(listens(address));
            run("ip", removal, "").unwrap();
            let begun = Instant::now();
            until("the address is back", || listens(address)).await;
            told(&format!("{removal:?}"), begun);
            until("and told", || {
                let integrity = enforcer.integrity();
                let integrity = integrity.borrow();
                let kind = integrity.last.as_ref().map(|last| last.damage[0].kind);
                kind == Some(DamageKind::Address) && integrity.damaged.is_empty()
            })
            .await;
        }
        let lo = run("ip", &["-o", "link", "show", "dev", "lo"], "").unwrap();
        assert!(lo.contains("UP"), "{lo}");
        assert_eq!(listed("alive").len(), 3);
        enforcer.shut_down().await;
    });
}

#[test]
fn rules_and_routes_of_mode_tproxy_that_were_removed_are_put_back() {
    inside(|| async {
        let enforcer = Enforcer::start_guarded("namegate").unwrap();
        let tproxy = DesiredState {
            interception: Interception::Tproxy {
                mark: std::num::NonZeroU32::new(0x100).unwrap(),
                routing_table: 1053,
                port: 5353,
            },
            ..full()
        };
        enforcer.install(tproxy, Vec::new).await.unwrap();
        tokio::time::sleep(Duration::from_millis(250)).await;
        let state = || {
            let show = |arguments: &str| run("ip", &arguments.split(' ').collect::<Vec<_>>(), "").unwrap_or_default();
            ["rule", "-6 rule", "route show table 1053", "-6 route show table 1053"].map(show)
        };
        let before = state();
        for removal in [
            "rule del pref 100",
            "rule del pref 99",
            "-6 rule del pref 100",
            "route flush table 1053",
            "-6 route flush table 1053",
            "route replace unreachable default table 1053",
        ] {
            run("ip", &removal.split(' ').collect::<Vec<_>>(), "").unwrap();
            let begun = Instant::now();
            until(removal, || state() == before).await;
            told(removal, begun);
        }
        until("it is told", || {
            let integrity = enforcer.integrity();
            let integrity = integrity.borrow();
            integrity.repairs[DamageKind::ALL
                .iter()
                .position(|kind| *kind == DamageKind::Route)
                .unwrap()]
                > 0
        })
        .await;
        enforcer.shut_down().await;
    });
}

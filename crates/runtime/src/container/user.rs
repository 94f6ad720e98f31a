//! Who an image's programs run as.

use serde_json::{Value, json};

/// A user of the image, by numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    further: Vec<u32>,
    /// Home directory and name, where the image knows them.
    pub(super) home: Option<String>,
    pub(super) name: Option<String>,
}

impl User {
    /// Finds `text` (`user`, `uid`, `user:group`, `uid:gid`; empty for root) in the image's `/etc/passwd`
    /// and `/etc/group`.
    pub(super) fn find(text: &str, passwd: &str, group: &str) -> Result<Self, String> {
        let (user, own_group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let entry = passwd.lines().map(fields).find(|entry| {
            entry.first() == Some(&user)
                || (entry.get(2) == Some(&user) && user.parse::<u32>().is_ok())
        });
        let number = |at: usize| entry.as_ref()?.get(at)?.parse::<u32>().ok();
        let uid = number(2).or_else(|| user.parse().ok());
        let uid = uid.ok_or_else(|| format!("the image has no user `{user}`"))?;
        let text = |at: usize| entry.as_ref()?.get(at).map(|text| (*text).to_owned());
        let name = text(0);
        let groups = || group.lines().map(fields);
        let (gid, further) = match own_group.filter(|group| !group.is_empty()) {
            Some(wanted) => {
                let entry = groups().find(|entry| entry.first() == Some(&wanted));
                let gid = entry.and_then(|entry| entry.get(2)?.parse().ok());
                let gid = gid.or_else(|| wanted.parse().ok());
                (gid.ok_or_else(|| format!("the image has no group `{wanted}`"))?, vec![])
            }
            None => {
                let is_in = |entry: &Vec<&str>| {
                    let members = entry.get(3).map(|members| members.split(','));
                    members.is_some_and(|mut all| all.any(|one| Some(one) == name.as_deref()))
                };
                let further = groups().filter(is_in);
                (number(3).unwrap_or(0), further.filter_map(|e| e.get(2)?.parse().ok()).collect())
            }
        };
        let home = text(5).filter(|home| !home.is_empty());
        Ok(Self { uid, gid, further, home, name })
    }

    /// Whether it needs ids that only a namespace with several has.
    pub(super) fn is_root(&self) -> bool {
        self.uid == 0 && self.gid == 0
    }

    /// As the OCI runtime specification writes it; `groups`: whether further ones may be had.
    pub(super) fn document(&self, groups: bool) -> Value {
        let further = if groups { self.further.as_slice() } else { &[] };
        json!({ "uid": self.uid, "gid": self.gid, "additionalGids": further })
    }
}

fn fields(line: &str) -> Vec<&str> {
    line.split(':').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/false\nbad\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlog:x:4:syslog,web\ntty:x:5:\n";

    #[test]
    fn users_are_found() {
        let find = |text| User::find(text, PASSWD, GROUP);
        let ids = |text| find(text).map(|user| (user.uid, user.gid, user.further));
        assert_eq!(ids(""), Ok((0, 0, vec![])));
        assert_eq!(ids("web"), Ok((33, 34, vec![4])));
        assert_eq!(ids("33"), Ok((33, 34, vec![4])));
        assert_eq!(ids("web:tty"), Ok((33, 5, vec![])));
        assert_eq!(ids("1000"), Ok((1000, 0, vec![])));
        assert_eq!(ids("1000:1001"), Ok((1000, 1001, vec![])));
        assert_eq!(find("web").unwrap().home.as_deref(), Some("/srv"));
        assert!(find("nobody").unwrap_err().contains("no user"));
        assert!(find("web:nothing").unwrap_err().contains("no group"));
        assert_eq!(User::find("", "", ""), Ok(User::default()));
    }
}

"""The test image: a root file system of Debian's busybox-static and openssh-server, as a tar."""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

START_SSHD = """#!/bin/sh
set -e
mkdir -p /etc/ssh /run/sshd
[ -e /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
/usr/sbin/sshd -f /dev/null -o UsePAM=no -o PermitRootLogin=yes -o HostKey=/etc/ssh/ssh_host_ed25519_key
"""

# A database in a few lines: `put WORDS` stores, `get` answers.
DB = """#!/bin/sh
read -r command value
case "$command" in
  put) echo "$value" > /tmp/value; echo stored ;;
  get) cat /tmp/value ;;
esac
"""

START_DB = """#!/bin/sh
busybox nc -ll -p "$1" -e /etc/db > /dev/null 2>&1 &
"""

# A web application in as many: it asks the database at another address.
START_APP = r"""#!/bin/sh
mkdir -p /tmp/www/cgi-bin
cat > /tmp/www/cgi-bin/db <<END
#!/bin/sh
answer=\$(echo "\$1" | busybox nc -w 5 $2 $3)
printf 'Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s' \${#answer} "\$answer"
END
printf '#!/bin/sh\nexec /tmp/www/cgi-bin/db "put $QUERY_STRING"\n' > /tmp/www/cgi-bin/put
printf '#!/bin/sh\nexec /tmp/www/cgi-bin/db get\n' > /tmp/www/cgi-bin/get
chmod +x /tmp/www/cgi-bin/*
busybox httpd -p "$1" -h /tmp/www
"""


def build(into: Path) -> Path:
    """Builds the image in a directory; returns the tar."""
    root = into / "root"
    shutil.rmtree(root, ignore_errors=True)
    for name in ["bin", "usr/sbin", "usr/bin", "etc", "root", "tmp", "run/sshd", "dev", "proc", "sys", "var/empty"]:
        (root / name).mkdir(parents=True)
    shutil.copy("/usr/bin/busybox", root / "bin/busybox")
    applets = subprocess.run(["/usr/bin/busybox", "--list"], capture_output=True, text=True, check=True)
    for applet in applets.stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    extra = ["/usr/lib/openssh/sshd-session", "/usr/lib/openssh/sshd-auth"]
    for program in ["/usr/sbin/sshd", "/usr/bin/ssh-keygen", *filter(os.path.exists, extra)]:
        install(program, root)
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nsshd:x:101:101:sshd:/run/sshd:/bin/false\n"
    )
    (root / "etc/group").write_text("root:x:0:\ntty:x:5:\nsshd:x:101:\n")
    (root / "etc/shadow").write_text("root:*:19000::::::\n")
    for name, text in {"start-sshd": START_SSHD, "db": DB, "start-db": START_DB, "start-app": START_APP}.items():
        (root / "etc" / name).write_text(text)
        (root / "etc" / name).chmod(0o755)
    (root / "tmp").chmod(0o1777)
    tar = into / "image.tar"
    with tarfile.open(tar, "w") as archive:
        def owned(info):
            info.uid = info.gid = 0
            info.uname = info.gname = "root"
            info.mtime = 0
            return info
        archive.add(root, arcname=".", filter=owned)
    return tar


def install(program: str, root: Path):
    """Copies a program of the host and the libraries it needs."""
    needed = subprocess.run(["ldd", program], capture_output=True, text=True).stdout.split()
    for file in [program, *[word for word in needed if word.startswith("/")]]:
        to = root / file[1:]
        to.parent.mkdir(parents=True, exist_ok=True)
        if not to.exists():
            shutil.copy(file, to)

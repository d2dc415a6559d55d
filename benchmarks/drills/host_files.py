"""What lies on a test host from the start: stand-ins for a cloud image's programs, sshd's file."""

from __future__ import annotations

# A host has no index of packages, no first boot to wait for, and its user is root already.
STUBS = {
    "cloud-init": "#!/bin/sh\nexit 0\n",
    "sudo": '#!/bin/sh\nexec env "$@"\n',
    "apt-get": """#!/bin/bash
# Installs nothing: looks whether what is asked for is there.
asked=; status=0
for word; do
  case $word in
    install) asked=1 ;;
    -*|DPkg*|update) ;;
    *) [ -z "$asked" ] && continue
       case $word in
         python3-venv) "$HOME/venv/bin/python" -c 'import venv' ;;
         *) command -v "$word" > /dev/null ;;
       esac || { echo "apt-get: $word is not installed on this machine" >&2; status=100; } ;;
  esac
done
exit $status
""",
}
SSHD_CONFIG = """HostKey /home/.sshd/host_key
PidFile none
AuthorizedKeysFile .ssh/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PermitRootLogin prohibit-password
PrintMotd no
MaxStartups 50
"""

#!/usr/bin/python
"""A module that checks some of the arguments of `consul_session` as Ansible's modules do."""

from ansible.module_utils.basic import AnsibleModule

AnsibleModule(
    argument_spec={
        "state": {"choices": ["absent", "info", "list", "node", "present"], "default": "present"},
        "id": {},
        "name": {"type": "str"},
        "node": {},
        "checks": {"type": "list", "elements": "str"},
        "node_checks": {"type": "list", "elements": "str"},
        "service_checks": {"type": "list", "elements": "str"},
        "port": {"type": "int"},
        "validate_certs": {"type": "bool"},
    },
    mutually_exclusive=[["checks", "node_checks"], ["checks", "service_checks"]],
    required_if=[["state", "info", ["id"]], ["state", "node", ["node"]], ["state", "absent", ["id", "name"], True]],
).exit_json()

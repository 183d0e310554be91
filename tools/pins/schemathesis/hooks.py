"""What schemathesis.toml cannot say: the strict contract, real images, valid emails, forms whose parts have no type,
and that an upload by email ends the deletion of an image."""

import os
import pathlib
import struct
import zlib

import schemathesis
import yaml
from hypothesis import strategies as st
from schemathesis.specs.openapi import checks


strict = yaml.safe_load((pathlib.Path(__file__).parents[2] / "openapi" / "strict.yaml").read_text())


def merge_patch(target, patch):
    """Apply a JSON merge patch (RFC 7396) to a dictionary."""
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict):
            merge_patch(target.setdefault(name, {}), value)
        else:
            target[name] = value


@schemathesis.hook
def before_load_schema(context, raw_schema):
    merge_patch(raw_schema, strict)
    if os.environ.get("TOKENS"):
        raw_schema["security"].remove({})
    schemas = raw_schema["components"]["schemas"]
    if os.environ.get("STATEFUL"):  # not for negative tests, which take every value for an invalid one of the format
        schemas["Email"]["format"] = "roster-email"
    # With an encoding in the contract, Swagger UI sends an input that is left empty. Without the other two,
    # schemathesis takes some valid forms for invalid: a part of a form has no type.
    for path, name in ("/user", "NewUserForm"), ("/upload", "AvatarForm"):
        schemas[name]["properties"]["avatar"] = {"type": "string", "format": "binary"}
        schemas[name]["patternProperties"]["^file$"] = {}
        form = raw_schema["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]
        form["encoding"] = {"avatar": {"contentType": "image/png"}}


recreated = checks._resource_recreated_after_delete


def recreated_or_uploaded(ctx, *, delete_path, delete_case_id, current_case_id):
    """Know that POST /upload stores a deleted image again. Only its response has the id of the user."""
    cases = list(ctx.internals.find_all_cases())
    ids = [case.id for case in cases]
    for case in cases[ids.index(delete_case_id) + 1 : ids.index(current_case_id)]:
        if delete_path.value != "/users/{id}/avatar" or case.operation.path != "/upload":
            continue
        response = ctx.internals.find_response(case_id=case.id)
        if response is None or response.status_code != 200:
            continue
        if response.json()["id"] == delete_path.variables["id"].lower():
            return True
    return recreated(ctx, delete_path=delete_path, delete_case_id=delete_case_id, current_case_id=current_case_id)


checks._resource_recreated_after_delete = recreated_or_uploaded

local = st.from_regex(r"[a-z0-9!#$%&'*+/=?^_`{|}~é-]{1,20}", fullmatch=True)
domain = st.from_regex(r"[a-zA-Z0-9❤]{1,20}(\.[a-zäöü]{2,6})?", fullmatch=True)
known = st.sampled_from(["ada@example.com", "ADA@EXAMPLE.COM", "grace@example.com", "josé@xn--mnchen-3ya.example"])
schemathesis.openapi.format("roster-email", known | st.builds("{}@{}".format, local, domain))


def png(width, height):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(width)) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def gif(width, height):
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, width, height, 0)
    return b"GIF89a" + screen + frame + b"\x02\x02\x44\x01\x00;"


images = st.builds(png, st.integers(1, 300), st.integers(1, 300)) | st.just(gif(1, 1))
broken = images.map(lambda image: image[:-1]) | st.binary(max_size=64)
schemathesis.openapi.media_type("image/png", st.integers(0, 3).flatmap(lambda n: images if n else broken))

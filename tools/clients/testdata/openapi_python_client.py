"""The tour with a client that openapi-python-client generated. Arguments: the URL of the service, and a PNG."""

import builtins
import io
import sys

from roster_client import Client, types

builtins.Unset = types.Unset  # before Python 3.14, create_user lacks it: its annotations are read at once

from roster_client.api.avatars import get_avatar, get_thumbnail, put_avatar, upload_avatar
from roster_client.api.users import create_user, delete_user, get_user, list_users, rename_user
from roster_client.models import AvatarForm, NewUser, UserChange

url, file = sys.argv[1:]
with open(file, "rb") as f:
    picture = f.read()

with Client(base_url=url) as client:
    ada = NewUser(name="Ada", email="ada@python.example")
    created = create_user.sync(client=client, body=ada)
    assert created.name == "Ada", created
    again = create_user.sync_detailed(client=client, body=ada)
    assert again.status_code == 409 and again.parsed.type_ == "urn:roster:problem:email-taken", again

    form = AvatarForm(avatar=types.File(io.BytesIO(picture), "ada.png", "image/png"), email=ada.email)
    uploaded = upload_avatar.sync(client=client, body=form)
    assert uploaded.avatar_url, uploaded
    put = put_avatar.sync(created.id, client=client, body=types.File(io.BytesIO(picture)))
    assert put.avatar_url != uploaded.avatar_url, put

    create_user.sync(client=client, body=NewUser(name="Grace", email="grace@python.example"))
    page = list_users.sync_detailed(client=client, limit=1)
    assert len(page.parsed) == 1 and 'rel="next"' in page.headers["Link"], page
    # It parses no image/*, but has the bytes.
    assert get_avatar.sync_detailed(created.id, client=client).content == picture
    assert get_thumbnail.sync_detailed(created.id, client=client).content

    etag = get_user.sync_detailed(created.id, client=client).headers["ETag"]
    change = UserChange(name="Ada King")
    assert rename_user.sync(created.id, client=client, body=change, if_match=etag).name == "Ada King"
    failed = rename_user.sync(created.id, client=client, body=change, if_match=etag)
    assert failed.type_ == "urn:roster:problem:precondition-failed", failed
    assert delete_user.sync_detailed(created.id, client=client).status_code == 204
    assert get_user.sync(created.id, client=client).type_ == "urn:roster:problem:not-found"

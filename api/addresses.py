"""What a mail address looks like that can stand in a header and an SMTP command as it is."""

ADDRESS = r"[A-Za-z0-9!#$'*+/=^_`{|}~.-]{1,64}@([A-Za-z0-9-]{1,63}\.)+[A-Za-z0-9-]{1,63}"

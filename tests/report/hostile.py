"""Texts that strangers choose (class names, overrides, paths), at their worst."""

SCRIPT = '<script>document.title="broken"</script>'
HOSTILE = (
    SCRIPT,
    '"><img src=x onerror="document.title=\'broken\'">',
    "'-->]]></title></style></script><h1>out</h1>",
    "{{ 7 * 7 }} {% raw %} ${7*7} &lt;b&gt; $x^{",
    "a|b\n| c `d` [e](javascript:alert(1)) *f* \\",
    "한국어 ‮ ümlaut \U0001f600",
)

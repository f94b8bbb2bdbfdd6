from epi2expr_jax.store.facts import Facts, counted


class Kettle(Facts):
    def facts(self):
        return "kettle <b>", {"litres": 2, "of": "<i>tea</i>"}


def test_facts_stand_in_lines_and_in_an_escaped_table():
    assert repr(Kettle()) == "kettle <b>\n  litres  2\n  of      <i>tea</i>"
    table = Kettle()._repr_html_()
    assert "<caption>kettle &lt;b&gt;</caption>" in table
    assert ">2</td>" in table
    assert "&lt;i&gt;tea&lt;/i&gt;" in table


def test_many_names_are_counted():
    assert counted("abcdefgh") == "8: a, b, c, d, e and 3 more"

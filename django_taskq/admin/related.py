"""The workflow of a run, on the run's own page: which it is a step of, what comes before the run and what after."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.utils.translation import gettext as _

from django_taskq.admin import words, workflow_words
from django_taskq.models import TaskRecord, Workflow
from django_taskq.models.workflow_steps import Relative, label_of, relatives_of
from django_taskq.steps import LinkKind

SHOWN = 20


def workflow_of(record: TaskRecord, using: str) -> dict[str, Any] | None:
    """What the template needs, in four queries however large the workflow is; None for a run that is no step."""
    if record.workflow_id is None:
        return None
    workflow = Workflow.objects.using(using).filter(pk=record.workflow_id).first()
    found = relatives_of(record, using, SHOWN)
    lists = [
        {"title": _("Before it"), "rows": _shown(found.parents), "has_more": found.has_more_parents},
        {"title": _("After it"), "rows": _shown(found.children), "has_more": found.has_more_children},
    ]
    return {
        "id": record.workflow_id,
        "name": workflow_words.title(workflow) if workflow else "",
        "badge": words.badge(workflow_words.workflow_look(workflow)) if workflow else "",
        "label": words.one_line(label_of(record)),
        "is_result": found.is_result,
        "lists": lists,
    }


def _shown(relatives: Iterable[Relative]) -> list[dict[str, Any]]:
    notes = {LinkKind.SUCCESS: "", LinkKind.END: _("whatever becomes of it"), LinkKind.FAILURE: _("if it fails")}
    return [
        {
            "id": record.pk,
            "badge": words.badge(words.status_look(record)),
            "name": workflow_words.step_name(record),
            "note": notes[kind],
        }
        for record, kind in relatives
    ]

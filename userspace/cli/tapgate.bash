# SPDX-License-Identifier: Apache-2.0
# bash completion for tapgate: the program knows its commands and asks the daemon for names.
_tapgate() {
    local word files=
    COMPREPLY=()
    while IFS= read -r word; do
        if [ "$word" = : ]; then
            files=yes
        else
            COMPREPLY+=("$word")
        fi
    done < <("${COMP_WORDS[0]}" --complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if [ -n "$files" ]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r word; do
            COMPREPLY+=("$word")
        done < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
    fi
}
complete -F _tapgate tapgate
